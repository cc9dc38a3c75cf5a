"""Files that are there whole or not at all."""

import concurrent.futures
import errno
import json
import os
import re
import threading
from collections import namedtuple

import pytest

from gat_tf.experiments.lab import files


def test_of_many_that_create_a_file_at_once_exactly_one_wins(tmp_path):
    path, count = tmp_path / "folder" / "config.json", 16
    barrier = threading.Barrier(count)

    def create(i):
        barrier.wait()
        return files.create_json(path, {"by": i})

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        won = list(pool.map(create, range(count)))
    assert sum(won) == 1
    assert files.read_json(path) == {"by": won.index(True)}
    assert [p.name for p in path.parent.iterdir()] == ["config.json"]


def test_file_that_is_there_is_not_created_where_links_are_not_known(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "config.json"
    assert files.create_json(path, {"by": 1})
    assert not files.create_json(path, {"by": 2})
    assert files.read_json(path) == {"by": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_exception_leaves_the_old_one_and_nothing_else(tmp_path, kind):
    path = tmp_path / "result.keras"

    def write(where, text):
        if kind == "folder":
            where.mkdir()
            where = where / "inside"
        where.write_text(text)

    def read():
        return (path / "inside" if kind == "folder" else path).read_text()

    with files.replacing(path) as temporary:
        write(temporary, "old")
        assert temporary.suffix == ".keras"  # by which Keras chooses the format

    def stopped():
        with files.replacing(path) as temporary:
            write(temporary, "half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert read() == "old"
    with files.replacing(path) as temporary:
        write(temporary, "new")
        assert read() == "old"
    assert read() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path, monkeypatch, number):
    path = tmp_path / "results.json"
    files.write_json(path, 1)

    def full(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.FullDiskError, match=r"results\.json could not be written.*free some"):
        files.write_json(path, 2)
    assert files.read_json(path) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_of_the_system_are_not_taken_for_a_full_disk(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        files.write_json(tmp_path / "file" / "results.json", 1)


def test_space_is_required_to_the_byte(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(9e9, 0, 5_000_000))
    files.require_space(tmp_path, 5_000_000)
    with pytest.raises(files.FullDiskError, match=r"room for 5\.0 MB, and 6\.0 MB are to be"):
        files.require_space(tmp_path, 6_000_000)


def test_json_is_a_field_a_line_with_lists_on_one(tmp_path):
    files.write_json(tmp_path / "a.json", {"ε": [1.5, 2], "b": {"c": [[1, 2], [3]]}})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"ε": [1.5, 2], "b": {"c": [[1, 2], [3]]}}
    assert re.search(r'^ "ε": \[ ?1\.5, 2 ?\],$', text, re.MULTILINE)


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b'{"a": "\xff"}'])
def test_file_that_is_not_whole_is_named(tmp_path, content):
    path = tmp_path / "unit.json"
    path.write_bytes(content)
    with pytest.raises(files.BrokenFileError, match=r"unit\.json\. Received.*truncated.*Delete it"):
        files.read_json(path)
