"""Vectors on disk: found again, never mixed up, shared by processes that are killed."""

import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from reasonflux_prm.errors import OutputError
from reasonflux_prm.labels.embedding_cache import EmbeddingCache


def vector(seed, width=6):
    return np.random.default_rng(seed).normal(size=width).astype(np.float32)


def filled(path, texts, identity="one", width=6):
    with EmbeddingCache(path, identity, width) as cache:
        cache.put({text: (vector(seed, width), seed + 1) for seed, text in enumerate(texts)})


def test_what_is_put_is_found_bit_for_bit(tmp_path):
    path = tmp_path / "new" / "embeddings.sqlite"
    texts = [f"text {n} é漢\n" for n in range(1200)]
    filled(path, texts)
    with EmbeddingCache(path, "one", 6) as cache:
        found = cache.get([*texts, "another"])
    assert list(found) != []
    assert set(found) == set(texts)
    for seed, text in enumerate(texts):
        assert found[text][0].tobytes() == vector(seed).tobytes()
        assert found[text][1] == seed + 1


def test_a_vector_of_nan_is_kept(tmp_path):
    with EmbeddingCache(tmp_path / "c.sqlite", "one", 2) as cache:
        cache.put({"a": (np.full(2, np.nan, np.float32), 1)})
        assert np.isnan(cache.get(["a"])["a"][0]).all()


@pytest.mark.parametrize(("identity", "width"), [("two", 6), ("one", 7)])
def test_another_encoder_or_width_is_never_mixed_in(tmp_path, identity, width):
    path = tmp_path / "c.sqlite"
    filled(path, ["a", "b"])
    with EmbeddingCache(path, identity, width) as cache:
        assert cache.get(["a", "b"]) == {}
        cache.put({"a": (vector(9, width), 1)})
    with EmbeddingCache(path, "one", 6) as cache:
        assert cache.get(["a"])["a"][0].tobytes() == vector(0).tobytes()


def test_a_damaged_vector_is_encoded_again(tmp_path):
    path = tmp_path / "c.sqlite"
    filled(path, ["a", "b"])
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE embeddings SET vector = x'0011' WHERE chunks = 1")
    database.close()
    with EmbeddingCache(path, "one", 6) as cache:
        assert set(cache.get(["a", "b"])) == {"b"}
        cache.put({"a": (vector(3), 1)})
        assert cache.get(["a"])["a"][0].tobytes() == vector(3).tobytes()


def test_what_is_no_database_is_refused(tmp_path):
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"no database " * 100)
    with pytest.raises(OutputError, match=r"c\.sqlite, the cache of embeddings, cannot be used: .* delete the file"):
        EmbeddingCache(path, "one", 6)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be used"):
        EmbeddingCache(tmp_path / "file" / "c.sqlite", "one", 6)


def test_a_full_disk_is_an_output_error_and_keeps_what_was_there(tmp_path):
    path = tmp_path / "c.sqlite"
    filled(path, ["a"])
    with EmbeddingCache(path, "one", 6) as cache:
        pages = cache._database.execute("PRAGMA page_count").fetchone()[0]
        cache._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutputError, match="database or disk is full"):
            cache.put({str(n): (vector(n), 1) for n in range(1000)})
        assert set(cache.get(["a", "0", "999"])) == {"a"}


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from reasonflux_prm.labels.embedding_cache import EmbeddingCache
path, me, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
while not path.with_suffix(".go").exists():
    time.sleep(0.01)
with EmbeddingCache(path, "one", 6) as cache:
    for round in range(rounds):
        cache.put({f"{me} {round} {n}": (np.full(6, n, np.float32), 1) for n in range(50)})
        cache.put({f"shared {n}": (np.full(6, n, np.float32), 1) for n in range(50)})
        print(round, flush=True)
"""


def writers(path, count, rounds):
    command = [sys.executable, "-c", WRITER, str(path)]
    return [
        subprocess.Popen([*command, str(me), str(rounds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for me in range(count)
    ]


def test_many_processes_open_and_write_one_file_at_once(tmp_path):
    path = tmp_path / "c.sqlite"
    running = writers(path, 6, 10)
    path.with_suffix(".go").touch()
    for process in running:
        assert process.communicate(timeout=120)[1] == ""
    with EmbeddingCache(path, "one", 6) as cache:
        texts = [f"{me} {round} {n}" for me in range(6) for round in range(10) for n in range(50)]
        found = cache.get([*texts, *(f"shared {n}" for n in range(50))])
    assert len(found) == 6 * 10 * 50 + 50
    assert all(values.tolist() == [float(text.split()[-1])] * 6 for text, (values, _) in found.items())


def test_a_killed_writer_leaves_whole_calls_and_a_usable_file(tmp_path):
    path = tmp_path / "c.sqlite"
    (process,) = writers(path, 1, 10**6)
    path.with_suffix(".go").touch()
    while int(process.stdout.readline()) < 3:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    with EmbeddingCache(path, "one", 6) as cache:
        for round in range(6):
            assert len(cache.get([f"0 {round} {n}" for n in range(50)])) in ((50,) if round < 4 else (0, 50))
        cache.put({"after": (vector(0), 1)})
        assert set(cache.get(["after"])) == {"after"}
