import gzip
import io
import json
import os
import re
import subprocess
import sys
import threading
import tracemalloc

import pytest

from reasonflux_prm.errors import InputError
from reasonflux_prm.records import Reject
from reasonflux_prm.traces import jsonl
from reasonflux_prm.traces.rows import Row, stem
from reasonflux_prm.traces.sources import open_source

A, B = {"id": "a", "n": 1}, {"id": "b", "n": 2}


def lines(*rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def columns(source):
    return [dict(row.columns) for row in open_source(source)]


def one_reject(path, content):
    path.write_bytes(content)
    (reject,) = open_source(path)
    assert isinstance(reject, Reject)
    assert (reject.file, reject.line) == (str(path), 1)
    return reject


class TestFiles:
    def test_jsonl(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_bytes(lines(A, B))
        first, second = open_source(path)
        assert first == Row(str(path), 1, A, '{"id": "a", "n": 1}')
        assert (second.line, second.where) == (2, "x:2")

    @pytest.mark.parametrize(
        "content",
        [
            b"\xef\xbb\xbf" + lines(A, B),
            lines(A, B).replace(b"\n", b"\r\n"),
            b"\n  \n" + lines(A) + b"\n" + lines(B) + b"\n",
            lines(A, B).removesuffix(b"\n"),
        ],
        ids=["byte order mark", "CRLF", "blank lines", "no last newline"],
    )
    def test_variants(self, tmp_path, content):
        (tmp_path / "x.jsonl").write_bytes(content)
        assert columns(tmp_path / "x.jsonl") == [A, B]

    def test_line_numbers_count_blank_lines(self, tmp_path):
        (tmp_path / "x.jsonl").write_bytes(b"\n" + lines(A))
        assert [row.line for row in open_source(tmp_path / "x.jsonl")] == [2]

    def test_gzip_is_told_by_its_bytes(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_bytes(gzip.compress(lines(A)) + gzip.compress(lines(B)))
        assert columns(path) == [A, B]

    @pytest.mark.parametrize("cut", [10, 60])
    def test_truncated_gzip(self, tmp_path, cut):
        path = tmp_path / "x.jsonl.gz"
        data = gzip.compress(lines(*({"id": os.urandom(32).hex()} for _ in range(2000))))
        path.write_bytes(data[: len(data) * cut // 100])
        *rows, last = open_source(path)
        assert 0 < len(rows) < 2000
        assert isinstance(last, Reject)
        assert last.line == len(rows) + 1
        assert "ends early" in last.reason

    def test_damaged_gzip(self, tmp_path):
        data = bytearray(gzip.compress(lines(A)))
        data[10:14] = b"\xff" * 4
        reject = one_reject(tmp_path / "x.jsonl.gz", bytes(data))
        assert "damaged" in reject.reason

    def test_gzip_of_nothing(self, tmp_path):
        (tmp_path / "x.gz").write_bytes(gzip.compress(b""))
        assert columns(tmp_path / "x.gz") == []

    @pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ", b"PK\x03\x04"])
    def test_other_compressions(self, tmp_path, magic):
        (tmp_path / "x").write_bytes(magic + b"...")
        with pytest.raises(InputError, match="another compression"):
            columns(tmp_path / "x")

    def test_missing(self, tmp_path):
        with pytest.raises(InputError, match="there is no such file"):
            open_source(tmp_path / "x.jsonl")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_no_permission(self, tmp_path):
        (tmp_path / "x.jsonl").write_bytes(lines(A))
        (tmp_path / "x.jsonl").chmod(0)
        with pytest.raises(InputError, match="Permission denied"):
            columns(tmp_path / "x.jsonl")

    def test_a_disk_that_fails(self, tmp_path):
        class Failing(io.RawIOBase):
            def readable(self):
                return True

            def readinto(self, buffer):
                raise OSError(5, "Input/output error")

        with pytest.raises(InputError, match="after line 0: Input/output error"):
            list(jsonl.json_lines(io.BufferedReader(Failing()), "x.jsonl"))

    @pytest.mark.parametrize(
        ("file", "name"),
        [("d/x.jsonl.gz", "x"), ("x.y.parquet", "x.y"), ("-", "stdin"), ("org/name:train", "name:train")],
    )
    def test_stem(self, file, name):
        assert stem(file) == name


class TestBadLines:
    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (b'{"a": "\xff"}', "expected UTF-8, got byte 0xff at byte 8"),
            (b'{"a": 1', "invalid JSON: .* at character 9"),
            (b'{"a": 1} {"b": 2}', "invalid JSON: Extra data"),
            (b"[1]", "got an array"),
            (b"3", "got a bare value"),
            (b'{"a": "\0"}', "got a NUL byte at byte 8"),
            (b'{"a": "\x01"}', "invalid JSON: Invalid control character"),
            (b'{"a": NaN}', "got NaN: write null instead"),
            (b'{"a": -Infinity}', "got -Infinity"),
            (b'{"a": 1e999}', "range of a double, got 1e999"),
            (b'{"a": "\\ud83d"}', r"half a surrogate pair \(\\ud83d\)"),
            (b'{"\\udc00": 1}', "half a surrogate pair"),
            (b'{"a": ' + b"9" * 5000 + b"}", "a number out of range"),
            (b'{"a": ' + b"[" * 100_000 + b"}", "nested too deeply"),
        ],
    )
    def test_reason(self, tmp_path, line, reason):
        path = tmp_path / "x.jsonl"
        path.write_bytes(lines(A) + line + b"\n" + lines(B))
        first, reject, last = open_source(path)
        assert (first.columns, last.columns) == (A, B)
        assert isinstance(reject, Reject)
        assert (reject.file, reject.line) == (str(path), 2)
        assert reject.raw == line.decode(errors="replace")[:2000]
        assert re.search(reason, reject.reason), reject.reason

    def test_an_escaped_nul_and_a_whole_pair_are_text(self, tmp_path):
        (tmp_path / "x.jsonl").write_bytes(b'{"a": "\\u0000", "b": "\\ud83d\\ude00"}\n')
        assert columns(tmp_path / "x.jsonl") == [{"a": "\0", "b": "😀"}]

    def test_raw_is_the_first_2000_characters(self, tmp_path):
        reject = one_reject(tmp_path / "x.jsonl", ("é" * 3000).encode())
        assert reject.raw == "é" * 2000

    def test_a_50_mb_line_is_read(self, tmp_path):
        text = "x" * 50_000_000
        (tmp_path / "x.jsonl").write_bytes(lines({"a": text}, B))
        first, second = columns(tmp_path / "x.jsonl")
        assert len(first["a"]) == 50_000_000
        assert second == B

    def test_a_line_over_the_limit_is_rejected_and_never_held(self, tmp_path, monkeypatch):
        monkeypatch.setattr(jsonl, "MAX_LINE", 1024 * 1024)
        path = tmp_path / "x.jsonl"
        path.write_bytes(lines(A) + b'{"a": "' + b"x" * 30_000_000 + b'"}\n' + lines(B))
        tracemalloc.start()
        first, reject, last = open_source(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (first.columns, last.columns, last.line) == (A, B, 3)
        assert reject == Reject(
            str(path), 2, "expected a line of at most 1 MiB, got a longer one: cut it into records", ""
        )
        assert peak < 8_000_000

    @pytest.mark.parametrize("extra", [-1, 0])
    def test_the_limit_itself(self, tmp_path, monkeypatch, extra):
        line = lines(A)
        monkeypatch.setattr(jsonl, "MAX_LINE", len(line) + extra)
        (tmp_path / "x.jsonl").write_bytes(line + lines(B))
        first, *_ = open_source(tmp_path / "x.jsonl")
        assert isinstance(first, Reject) == (extra < 0)

    def test_memory_does_not_grow_with_the_file(self, tmp_path):
        path = tmp_path / "x.jsonl"
        path.write_bytes(lines({"a": "x" * 100_000}) * 200)
        tracemalloc.start()
        count = sum(1 for _ in open_source(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 200
        assert peak < 2_000_000


class TestPipes:
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_standard_input(self, pack):
        code = (
            "from reasonflux_prm.traces.sources import open_source\n"
            "for row in open_source('-'): print(row.where, row.columns['id'])"
        )
        done = subprocess.run([sys.executable, "-c", code], input=pack(lines(A, B)), capture_output=True, check=True)
        assert done.stdout.decode().split("\n") == ["stdin:1 a", "stdin:2 b", ""]

    def test_parquet_cannot_be_piped(self, monkeypatch):
        stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"PAR1....")))
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(InputError, match="Parquet, which no pipe can give"):
            list(open_source("-"))

    def test_named_pipe(self, tmp_path):
        path = tmp_path / "pipe"
        os.mkfifo(path)
        writer = threading.Thread(target=lambda: path.write_bytes(gzip.compress(lines(A, B))))
        writer.start()
        assert columns(path) == [A, B]
        writer.join()

    def test_records_come_as_they_are_written(self, tmp_path):
        read, write = os.pipe()
        with os.fdopen(read, "rb") as stream, os.fdopen(write, "wb", buffering=0) as sink:
            rows = jsonl.json_lines(stream, "-")
            sink.write(lines(A))
            assert next(rows).columns == A
            sink.write(lines(B))
            assert next(rows).columns == B


class TestDirectories:
    def test_files_in_order_with_subdirectories(self, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "a.ndjson").write_bytes(lines(B))
        (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(A)))
        for other in ("README.md", "x.json", "b.rejects.jsonl", "b.manifest.json", ".hidden.jsonl"):
            (tmp_path / other).write_bytes(b"not data")
        (tmp_path / ".git").mkdir()
        (tmp_path / ".git" / "x.jsonl").write_bytes(b"not data")
        assert columns(tmp_path) == [A, B]

    @pytest.mark.parametrize(
        "name", ["train.jsonl", "train-00000-of-00001.jsonl", "train/x.jsonl", "data/train-0.jsonl"]
    )
    def test_split(self, tmp_path, name):
        for path, row in ((tmp_path / name, A), (tmp_path / "test.jsonl", B), (tmp_path / "training.jsonl", B)):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(lines(row))
        assert columns(f"{tmp_path}:train") == [A]
        with pytest.raises(InputError, match="data files of the split valid"):
            open_source(f"{tmp_path}:valid")

    def test_without_data(self, tmp_path):
        (tmp_path / "README.md").write_text("nothing")
        with pytest.raises(InputError, match=r"expected data files \(.jsonl, .* found none"):
            open_source(tmp_path)
