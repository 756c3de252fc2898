"""Unfit characters and secrets are removed from text."""

from apprentice.records.text import plain, redacted


def test_characters_that_tokenizers_and_terminals_cannot_handle_are_replaced():
    assert plain("a\ud83db\udfff\0\x1b[2J\x9b2J\x7f") == "a\ufffdb\ufffd\ufffd\ufffd[2J\ufffd2J\ufffd"
    ordinary = "tab\tline\r\ncafé 漢 \U0001f600\u2028\n"
    assert plain(ordinary) == ordinary


def test_credentials_and_query_strings_are_removed_from_urls():
    assert redacted("see https://a.b/c and s3://k:v@x/y, http://h/r?key=hush") == "see https://a.b/c and s3://…@x/y, http://h/r?…"
