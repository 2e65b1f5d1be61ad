import json
import os
import sys
import types

import pytest

from reasonflux_prm.errors import DownloadError, InputError, MissingExtra
from reasonflux_prm.traces.rows import Row
from reasonflux_prm.traces.sources import open_source
from reasonflux_prm.traces.tables import is_dataset_id

A, B = {"id": "a", "n": 1}, {"id": "b", "n": 2}


def columns(source):
    return [dict(row.columns) for row in open_source(source)]


class TestParquet:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def test_nested_columns_and_kinds(self, tmp_path):
        import datetime
        import decimal

        row = {
            "id": 7,
            "messages": [{"role": "user", "content": "P"}, {"role": "assistant", "content": None}],
            "score": 0.5,
            "missing": float("nan"),
            "when": datetime.datetime(2026, 1, 2, 3, 4, 5),
            "price": decimal.Decimal("1.50"),
            "bytes": b"text",
            "flags": [True, None],
        }
        self.pq.write_table(self.pa.Table.from_pylist([row]), tmp_path / "x.parquet")
        (got,) = columns(tmp_path / "x.parquet")
        assert got == row | {"missing": None, "when": "2026-01-02T03:04:05", "price": 1.5, "bytes": "text"}
        json.dumps(got, allow_nan=False)

    def test_rows_are_numbered_over_batches(self, tmp_path):
        table = self.pa.table({"n": list(range(200))})
        self.pq.write_table(table, tmp_path / "x.parquet", row_group_size=50)
        rows = list(open_source(tmp_path / "x.parquet"))
        assert [(row.line, row.columns["n"]) for row in rows] == [(k + 1, k) for k in range(200)]

    @pytest.mark.parametrize(("value", "reason"), [(float("inf"), "finite numbers"), (b"\xff", "not UTF-8")])
    def test_values_that_json_cannot_hold(self, tmp_path, value, reason):
        self.pq.write_table(self.pa.table({"x": [value, value]}), tmp_path / "x.parquet")
        first, second = open_source(tmp_path / "x.parquet")
        assert reason in first.reason
        assert "column x" in first.reason
        assert second.line == 2

    def test_damaged(self, tmp_path):
        path = tmp_path / "x.parquet"
        path.write_bytes(b"PAR1 and nothing else")
        with pytest.raises(InputError, match=r"expected .*x\.parquet to be a Parquet file"):
            columns(path)

    def test_damaged_in_the_middle(self, tmp_path):
        path = tmp_path / "x.parquet"
        rows = [{"text": os.urandom(500).hex()} for _ in range(300)]
        self.pq.write_table(self.pa.Table.from_pylist(rows), path, row_group_size=100, compression="snappy")
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 2000] = b"\xff" * 2000
        path.write_bytes(bytes(data))
        *good, last = open_source(path)
        if isinstance(last, Row):
            pytest.skip("this pyarrow reads over the damage")
        assert "the Parquet file is damaged" in last.reason
        assert last.line == len(good) + 1 > 64

    def test_without_pyarrow(self, tmp_path, monkeypatch):
        self.pq.write_table(self.pa.table({"x": [1]}), tmp_path / "x.parquet")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(MissingExtra, match=r'pip install "reasonflux-prm\[data\]"'):
            columns(tmp_path / "x.parquet")


class TestSavedDatasets:
    datasets = pytest.importorskip("datasets")

    def test_table(self, tmp_path):
        self.datasets.Dataset.from_list([A, B]).save_to_disk(str(tmp_path / "d"))
        assert columns(tmp_path / "d") == [A, B]
        with pytest.raises(InputError, match="leave out :train"):
            columns(f"{tmp_path / 'd'}:train")

    def test_splits(self, tmp_path):
        both = self.datasets.DatasetDict(
            {"train": self.datasets.Dataset.from_list([A]), "test": self.datasets.Dataset.from_list([B])}
        )
        both.save_to_disk(str(tmp_path / "d"))
        (row,) = open_source(f"{tmp_path / 'd'}:test")
        assert (row.columns, row.where) == (B, "d:test:1")
        with pytest.raises(InputError, match=r"one of the splits train, test of .*, none was named"):
            columns(tmp_path / "d")

    def test_damaged(self, tmp_path):
        (tmp_path / "state.json").write_text("{}")
        with pytest.raises(InputError, match="save_to_disk"):
            columns(tmp_path)


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch):
        """A stand-in for `datasets` with one data set, which notes how it was asked."""
        fake = types.ModuleType("datasets")
        fake.asked = []
        splits = {"train": [A], "test": [B]}

        def load_dataset(name, config, *, split, streaming):
            fake.asked.append((name, config, split, streaming))
            if name == "org/offline":
                raise ConnectionError("no network")
            if name == "org/one":
                return {"train": [A]}
            if split is not None and split not in splits:
                raise ValueError(f"Unknown split {split}. Should be one of ['train', 'test'].")
            return splits if split is None else splits[split]

        fake.load_dataset = load_dataset
        monkeypatch.setitem(sys.modules, "datasets", fake)
        return fake

    @pytest.mark.parametrize(
        ("source", "asked"),
        [
            ("org/name:test", ("org/name", None, "test", True)),
            ("org/name:main:test", ("org/name", "main", "test", True)),
        ],
    )
    def test_ids(self, hub, source, asked):
        (row,) = open_source(source)
        assert (row.file, row.line, row.columns) == (source, 1, B)
        assert hub.asked == [asked]

    def test_a_single_split_needs_no_name(self, hub):
        (row,) = open_source("org/one")
        assert (row.file, row.columns) == ("org/one:train", A)

    def test_several_splits_need_one(self, hub):
        with pytest.raises(InputError, match=r"one of the splits train, test of org/name.*give org/name:SPLIT"):
            open_source("org/name")

    def test_unknown_split(self, hub):
        with pytest.raises(InputError, match="Should be one of"):
            open_source("org/name:valid")

    def test_offline(self, hub):
        with pytest.raises(DownloadError, match="there is no such file, and the hub gave ConnectionError: no network"):
            open_source("org/offline")

    def test_connection_lost_on_the_way(self, hub, monkeypatch):
        def rows():
            yield A
            raise ConnectionError("reset")

        monkeypatch.setattr(hub, "load_dataset", lambda *args, **kwargs: rows())
        found = open_source("org/name:train")
        assert next(found).columns == A
        with pytest.raises(DownloadError, match="reset"):
            next(found)

    def test_without_datasets(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(MissingExtra, match=r"but there is none.*pip install \"reasonflux-prm\[data\]\""):
            open_source("org/name")

    @pytest.mark.parametrize(
        ("name", "known"),
        [
            ("org/name", True),
            ("open-r1/OpenR1-Math-220k:default:train", True),
            ("data/x.jsonl", False),
            ("data/x.jsonl.gz", False),
            ("name", False),
            ("/org/name", False),
            ("./name", False),
            ("a/b/c", False),
            ("org/name:a:b:c", False),
        ],
    )
    def test_what_may_be_an_id(self, name, known):
        assert is_dataset_id(name) == known
