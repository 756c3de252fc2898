"""Metrics as files hold them."""

from apprentice.records.metrics import csv_text, flatten, mean, read_csv


def test_nested_values_get_flat_names():
    nested = {"trained": {"em": 0.4, "ci": [0.3, 0.5]}, "seconds": 2}
    assert dict(flatten(nested)) == {"trained.em": 0.4, "trained.ci": [0.3, 0.5], "seconds": 2}
    assert next(flatten(nested, "/")) == ("trained/em", 0.4)


def test_the_mean_of_nothing_is_zero():
    assert mean([]) == 0.0
    assert mean(value for value in (1, 2)) == 1.5


def test_csv_has_every_column_and_is_read_back(tmp_path):
    text = csv_text([{"step": 0, "reward": 0.5}, {"step": 1, "reward": 1.0, "note": 'a, "b"'}])
    assert text == 'step,reward,note\n0,0.5,\n1,1.0,"a, ""b"""\n'
    (tmp_path / "rows.csv").write_text(text)
    assert read_csv(tmp_path / "rows.csv")[1] == {"step": "1", "reward": "1.0", "note": 'a, "b"'}
    assert read_csv(tmp_path / "missing.csv") == []
