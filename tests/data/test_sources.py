"""Sources: the choice of files, the files that are rejected, and the lines that are quarantined with a reason."""

import gzip
import json
import os
import subprocess
import sys

import pytest

from apprentice.data.sources import Source, find_file, open_source, read_lines
from apprentice.errors import ApprenticeError

ROW = {"question": "q", "answer": "a"}


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path, "data")


def chosen(source, *patterns, word=""):
    return find_file(source, patterns or ("train.jsonl",), "the questions", word)


def refusal(call, *arguments):
    with pytest.raises(ApprenticeError) as caught:
        list(call(*arguments))
    return str(caught.value)


def put(path, content=b'{"question": "q"}\n'):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read(source, content, name="train.jsonl"):
    return list(read_lines(source, put(source.folder / name, content)))


def test_a_gzipped_file_on_top_is_taken_before_a_plain_one_below(source):
    put(source.folder / "old" / "train.jsonl")
    on_top = put(source.folder / "train.jsonl.gz", gzip.compress(b"{}"))
    assert chosen(source).path == on_top


def test_any_pattern_on_top_is_taken_before_a_better_one_below(source):
    put(source.folder / "old" / "train.jsonl")
    on_top = put(source.folder / "NQ-open.train.jsonl")
    assert chosen(source, "train.jsonl", "*train*.jsonl").path == on_top


@pytest.mark.parametrize("names", [("train.jsonl", "train.jsonl.gz"), ("a/train.jsonl", "b/train.jsonl"), ("a/train.jsonl", "b/train.jsonl.gz")])
def test_files_that_match_equally_well_are_named(source, names):
    for name in names:
        put(source.folder / name)
    said = refusal(chosen, source)
    assert said.startswith("data: 2 files") and all(name in said.replace(",", " ").split() for name in names) and "leave one file" in said


def test_a_file_that_matches_less_well_is_reported(source):
    paths = [put(source.folder / name) for name in ("musique_ans_v1.0_train.jsonl", "musique_full_v1.0_train.jsonl")]
    found = chosen(source, "train.jsonl", "musique_ans*train*.jsonl", "*train*.jsonl", word="train")
    assert (found.path, found.others) == (paths[0], (paths[1],))


def test_a_split_must_be_a_word_of_the_name(source):
    put(source.folder / "constraints.dev.jsonl")
    assert "there is no *train*.jsonl" in refusal(lambda: chosen(source, "*train*.jsonl", word="train"))


def test_a_pipe_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train.jsonl")
    code = (
        "from pathlib import Path; from apprentice.data.sources import *\n"
        f"try: find_file(Source(Path({str(tmp_path)!r}), 'data'), ('train.jsonl',), 'the questions')\nexcept ApprenticeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert "data/train.jsonl: is not a regular file (a pipe" in done.stdout


def test_a_folder_with_a_files_name_and_a_broken_link_are_refused(source):
    (source.folder / "train.jsonl").mkdir()
    assert "data/train.jsonl: is a folder" in refusal(chosen, source)
    (source.folder / "train.jsonl").rmdir()
    (source.folder / "my.train.jsonl").symlink_to("nowhere")
    assert "data/my.train.jsonl: is not a regular file" in refusal(lambda: chosen(source, "*train.jsonl"))


@pytest.mark.parametrize("name", ["~nosuchuser/data", "/" + "x" * 300])
def test_a_path_that_cannot_be_looked_up_is_one_error(name):
    assert "data.source=" in refusal(open_source, name)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-12], lambda raw: raw[:40] + b"\xff\xff\xff" + raw[43:], lambda raw: b"PLAIN" + raw])
def test_damaged_compression_is_one_error(source, damage):
    raw = gzip.compress(b"".join(json.dumps({"question": os.urandom(20).hex()}).encode() + b"\n" for _ in range(50)))
    path = put(source.folder / "train.jsonl.gz", damage(raw))
    assert "data/train.jsonl.gz: its compression is broken" in refusal(read_lines, source, path)


def test_a_gzipped_file_without_its_ending_is_read(source):
    assert [line.value for line in read(source, gzip.compress(b'{"a": 1}\n'))] == [{"a": 1}]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"id": ' + b"9" * 5000 + b"}", "a number has too many digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 60 + b"1" + b"}" * 60, "nested more than 20 levels deep"),
        (b'{"answer": NaN}', "NaN is not a JSON value"),
        (b'{"answer": [-Infinity]}', "-Infinity is not a JSON value"),
        (b'{"answer": 1e999}', "1e999 is not a finite number"),
        (b'{"answer": "a", "answer": "b"}', "the key 'answer' is repeated"),
        (b"7", "is a JSON int, not an object"),
    ],
)
def test_a_line_that_cannot_be_used_is_set_aside_and_the_rest_is_read(source, raw, reason):
    good, bad, after = read(source, b'{"question": "q"}\n' + raw + b'\n{"question": "r"}\n')
    assert good.value and after.value and (bad.value, bad.number) == (None, 2) and reason in bad.error


def test_lines_may_end_with_a_carriage_return_alone(source):
    assert [(line.number, line.value) for line in read(source, b'{"a": 1}\r\r{"a": 2}\r')] == [(1, {"a": 1}), (3, {"a": 2})]
    assert [line.value for line in read(source, b'{"a": 1}\r\n{"a": 2}\r\n')] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_a_document_over_several_lines_is_read_with_the_line_of_each_object(source, ending):
    rows = [ROW, {**ROW, "question": "r"}]
    listed = json.dumps(rows, indent=2).encode().replace(b"\n", ending)
    assert [(line.number, line.value) for line in read(source, listed)] == [(2, rows[0]), (6, rows[1])]
    streamed = b"\n".join(json.dumps(row, indent=2).encode() for row in rows).replace(b"\n", ending)
    assert [(line.number, line.value) for line in read(source, b"\xef\xbb\xbf" + streamed)] == [(1, rows[0]), (5, rows[1])]


def test_an_object_of_a_document_that_cannot_be_used_is_set_aside(source):
    first, second, third = read(source, b'[\n{"a": 1},\n{"a": NaN},\n{"a": 3}\n]')
    assert (first.value, second.number, third.value) == ({"a": 1}, 3, {"a": 3}) and "NaN" in second.error


@pytest.mark.parametrize(("raw", "line"), [(b'[\n{"a": 1},\n{"a" 2}\n]', 3), (b'[\n{"a": 1}\n', 3), (b'[\n{"a": "\xff"}\n]', 2), (b"[\n" + b"[" * 100_000, 2)])
def test_a_damaged_document_names_the_line(source, raw, line):
    path = put(source.folder / "train.jsonl", raw)
    assert refusal(read_lines, source, path).startswith(f"data/train.jsonl:{line}: ")


def parquet(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([{"question": "q", "answers": ["a", "b"]}]), path)


def csv(path):
    path.write_text('question,answers\n"q, and more",a\n')


def array(path):
    path.write_text(json.dumps([{"question": "q", "answers": ["a"]}], indent=2))


@pytest.mark.parametrize(("ending", "write"), [("parquet", parquet), ("csv", csv), ("json", array)])
def test_another_format_is_named_with_a_command_that_converts_it(source, ending, write, monkeypatch):
    write(source.folder / f"train.{ending}")
    said = refusal(chosen, source)
    assert f"there is no train.jsonl[.gz], only train.{ending}" in said
    command = said.partition("convert it to JSONL: ")[2].replace(".venv/bin/python", sys.executable)
    subprocess.run(command, shell=True, check=True, timeout=60)
    assert next(read_lines(source, chosen(source).path)).value["question"].startswith("q")


@pytest.mark.parametrize("write", [parquet, csv])
def test_another_format_under_the_right_name_is_recognised(source, write):
    write(source.folder / "train.jsonl")
    said = refusal(read_lines, source, source.folder / "train.jsonl")
    assert "data/train.jsonl: is not JSONL but" in said and "convert it: mkdir -p" in said


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04...", "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    ],
)
def test_a_file_that_is_no_text_is_refused_at_once(source, raw, said):
    assert said in refusal(read_lines, source, put(source.folder / "train.jsonl", raw))


def test_a_file_name_that_is_not_utf_8_can_be_written_down(source):
    path = put(source.folder / os.fsdecode(b"\xff_train.jsonl"))
    assert next(read_lines(source, path)).file == "data/\ufffd_train.jsonl"
