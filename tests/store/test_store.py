"""Stores and the versions of data in them: a folder, and an object store in memory where obstore is installed."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from stack import Stack

from imagesr import files
from imagesr.errors import InputError, OutputError
from imagesr.store import local_folder, open_store, versions, without_secrets
from imagesr.store.local import LocalStore
from imagesr.store.versions import (
    MANIFEST,
    POINTER,
    File,
    Manifest,
    changed_files,
    current,
    fetch,
    list_tree,
    prune,
    publish,
    read_manifest,
    read_tree,
)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Return the address of a bucket on an S3 server."""
    stack = Stack(tmp_path_factory.mktemp("s3"), tracking=False)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.env.items():
            patch.setenv(name, value)
        yield stack.bucket
    stack.end()


@pytest.fixture(params=["folder", "memory", pytest.param("s3", marks=pytest.mark.stack)])
def store(request, tmp_path):
    if request.param == "folder":
        return LocalStore(tmp_path / "store")
    pytest.importorskip("obstore", reason="needs obstore (pip install 'imagesr[store]')")
    if request.param == "memory":
        return open_store("memory:///")
    return open_store(f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}")


@pytest.mark.stack
def test_an_object_store_through_a_cache(bucket, tmp_path, monkeypatch):
    url, cache = f"{bucket}/{uuid.uuid4().hex}", tmp_path / "cache"
    version, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="one", b="two"), open_store(url))
    folder = fetch(url, cache=cache)
    assert (folder.name, folder.parent.parent) == (version, cache)
    (folder / "a.png").write_text("damaged")
    open_store(url).remove(f"versions/{version}/b.png")
    assert (fetch(url, cache=cache) / "a.png").read_text() == "one", "what is whole is not fetched again"
    (folder / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.png, which is missing"):
        fetch(url, cache=cache)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match="Expected a store that answers") as told:
        fetch(url, cache=cache)
    assert "wrong secret key" in str(told.value) and "\n" not in str(told.value)
    with pytest.raises(InputError, match="Expected a store that answers"):
        fetch("s3://no-such-bucket/x", cache=cache)


def make_tree(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('_', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    manifest = Manifest(list_tree(folder), sources=[{"name": "x"}], kernel="bicubic", code="1")
    (folder / MANIFEST).write_bytes(manifest.text())
    return manifest


def test_reads_what_was_written(store):
    assert store.get("a/b") is None
    assert store.size("a/b") is None
    store.put("a/b", b"one")
    store.put("a/b", b"three")
    store.copy("a/b", "a/c/d")
    assert (store.get("a/b"), store.size("a/c/d"), store.names("a")) == (b"three", 5, ["a/b", "a/c/d"])
    store.remove("a/b")
    store.remove("a/b")
    assert store.names("a") == ["a/c/d"]
    assert store.names("nothing") == []


def test_one_of_many_creates(store):
    made = []
    threads = [
        threading.Thread(target=lambda i=i: made.append(i) if store.create("claim", b"%d" % i) else None)
        for i in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert store.get("claim") == b"%d" % made[0]


def test_swaps_only_what_is_still_there(store):
    assert not store.swap("p", b"old", b"new")
    assert store.swap("p", None, b"one")
    assert not store.swap("p", None, b"two")
    assert store.swap("p", b"one", b"two")
    assert not store.swap("p", b"one", b"three")
    assert store.get("p") == b"two"


def test_publishes_once_and_sends_nothing_twice(store, tmp_path):
    tree = tmp_path / "tree"
    manifest = make_tree(tree, div2k_train_1="one", div2k_train_2="two")
    first, sent = publish(tree, manifest, store)
    assert (sent, current(store), first) == (2, first, manifest.version)
    assert publish(tree, manifest, store) == (first, 0)
    second, sent = publish(tree, make_tree(tree, div2k_train_3="three"), store)
    assert sent == 1, "files of the version before were copied"
    assert read_manifest(store, second).parent == first
    assert store.get(f"versions/{second}/div2k/train/1.png") == b"one"
    assert read_manifest(store, first).files, "the old version is still there"


def test_other_code_makes_no_other_data(store, tmp_path):
    make_tree(tmp_path / "tree", a="one")
    files = list_tree(tmp_path / "tree")
    first, _ = publish(tmp_path / "tree", Manifest(files, code="one"), store)
    assert publish(tmp_path / "tree", Manifest(files, code="two"), store) == (first, 0)
    assert publish(tmp_path / "tree", Manifest(files, kernel="area"), store)[0] != first


def test_of_two_writers_one_is_told(store, tmp_path):
    make_tree(tmp_path / "a", a="one")
    make_tree(tmp_path / "b", b="two")

    def meanwhile(items, **_):
        yield from items
        if not meanwhile.done:
            meanwhile.done = True
            publish(tmp_path / "b", Manifest(list_tree(tmp_path / "b")), store)

    meanwhile.done = False
    with pytest.raises(OutputError, match="Another one has published"):
        publish(tmp_path / "a", Manifest(list_tree(tmp_path / "a")), store, progress=meanwhile)
    assert [file.path for file in read_manifest(store, current(store)).files] == ["b.png"]


def test_a_file_that_changed_is_not_published(store, tmp_path):
    manifest = make_tree(tmp_path / "tree", a="one")
    (tmp_path / "tree/a.png").write_text("two")
    with pytest.raises(InputError, match="It has changed"):
        publish(tmp_path / "tree", manifest, store)
    assert current(store) is None
    assert changed_files(tmp_path / "tree", manifest) == [f"{tmp_path / 'tree/a.png'}, which has changed"]
    with pytest.raises(InputError, match=r"a\.png, which has changed"):
        read_tree(tmp_path / "tree")


def test_prune_keeps_the_newest(store, tmp_path):
    versions = []
    for text in ("one", "two", "three"):
        versions.append(publish(tmp_path / "tree", make_tree(tmp_path / "tree", a=text), store)[0])
    assert prune(store, 2) == [versions[0]]
    assert prune(store, 2) == []
    assert not store.names(f"versions/{versions[0]}")
    assert store.get(f"versions/{versions[1]}/a.png") == b"two"
    with pytest.raises(ValueError, match="keep at least 1"):
        prune(store, 0)


class Busy:
    """A store in which somebody publishes right after the first call of one of its methods."""

    def __init__(self, store, call, publish):
        self._store, self._call, self._publish = store, call, publish

    def __getattr__(self, name):
        def called(*args):
            result = getattr(self._store, name)(*args)
            if name == self._call and self._publish:
                meanwhile, self._publish = self._publish, None
                meanwhile()
            return result

        return called


@pytest.mark.parametrize("call", ["names", "get", "size"])
def test_prune_leaves_what_is_published_meanwhile(store, tmp_path, call):
    versions = [publish(tmp_path / "tree", make_tree(tmp_path / "tree", a=text), store)[0] for text in ("one", "two")]

    def meanwhile():
        versions.append(publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="three"), store)[0])

    gone = prune(Busy(store, call, meanwhile), 1)
    assert versions[2] == current(store) and versions[2] not in gone
    assert read_manifest(store, versions[2]) and store.get(f"versions/{versions[2]}/a.png") == b"three"
    assert versions[0] in gone


def test_prune_leaves_what_is_on_its_way(store, tmp_path):
    """A version that has its manifest, but that the pointer does not name yet, is published all the same."""
    publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="one"), store)

    class Slow(Busy):
        def swap(self, *args):
            assert prune(store, 1) == []
            return store.swap(*args)

    version, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="two"), Slow(store, "", None))
    assert (current(store), store.get(f"versions/{version}/a.png")) == (version, b"two")
    assert read_manifest(store, version).parent


def test_two_processes_fill_one_cache(tmp_path, monkeypatch):
    """Both have written a file, and neither has given it its name yet."""
    store = LocalStore(tmp_path / "store")
    version, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="one"), store)
    monkeypatch.setattr(versions, "open_store", lambda address: store)
    place, both = files.put_in_place, threading.Barrier(2)

    def late(part, path):
        if path.name == "a.png":
            both.wait(60)
        place(part, path)

    monkeypatch.setattr(files, "put_in_place", late)
    fetching = partial(fetch, "s3://bucket/data", cache=tmp_path / "cache")
    with ThreadPoolExecutor(2) as pool:
        one, two = [future.result() for future in [pool.submit(fetching), pool.submit(fetching)]]
    assert one == two
    assert sorted(path.name for path in one.iterdir()) == ["a.png", MANIFEST]
    assert (one / "a.png").read_text() == "one" and read_tree(one).version == version


class Jumped(Busy):
    """A store, or a machine, whose clock has jumped two days ahead."""

    def ages(self, prefix):
        return {name: age + 2 * 24 * 3600 for name, age in self._store.ages(prefix).items()}


def test_a_clock_that_jumps_makes_nothing_old(store, tmp_path):
    old, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="one"), store)

    class Slow(Busy):
        def put(self, name, data):
            if name.endswith(MANIFEST):
                assert prune(Jumped(store, "", None), 1) == []
            store.put(name, data)

    version, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="two"), Slow(store, "", None))
    assert version == current(store) != old
    assert store.get(f"versions/{version}/a.png") == b"two"
    assert not store.names("clock")


def test_a_version_with_a_gap_is_not_published(store, tmp_path):
    old, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="one"), store)
    manifest = make_tree(tmp_path / "tree", b="two")
    gone = f"versions/{dataclasses.replace(manifest, parent=old).version}/b.png"

    def removed(items, **_):
        yield from items
        store.remove(gone)

    with pytest.raises(OutputError, match=r"b\.png, which was removed meanwhile"):
        publish(tmp_path / "tree", manifest, store, progress=removed)
    assert current(store) == old


class Killed(BaseException):
    """Ends a call as a kill does."""


class Killing:
    """A store whose process is killed at one call of one of its methods."""

    def __init__(self, store, call, left):
        self._store, self._call, self._left = store, call, left

    def __getattr__(self, name):
        if name == self._call:
            self._left -= 1
            if self._left < 0:
                raise Killed
        return getattr(self._store, name)


def test_what_a_killed_call_leaves_is_removed_a_day_later(store, tmp_path, monkeypatch):
    first, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="one", b="two", c="x"), store)
    second, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="1", b="2"), store)
    with pytest.raises(Killed):
        prune(Killing(store, "remove", 2), 1)
    manifest = make_tree(tmp_path / "tree", d="four")
    with pytest.raises(Killed):
        publish(tmp_path / "tree", manifest, Killing(store, "swap", 0))
    third = next(name.split("/")[1] for name in store.names("versions") if name.endswith("d.png"))
    store.remove(f"versions/{third}/{MANIFEST}")
    left = store.names("versions")
    assert {name.split("/")[1] for name in left} == {first, second, third}
    assert prune(store, 1) == [] and store.names("versions") == left, "it may be on its way"
    monkeypatch.setattr(versions, "_ABANDONED", -1)
    assert prune(store, 1) == sorted([first, third])
    assert {name.split("/")[1] for name in store.names("versions")} == {second}
    assert publish(tmp_path / "tree", manifest, store) == (third, 1)


def test_what_is_published_anew_is_not_abandoned(tmp_path):
    """Files of a call that was killed long ago, and links to old files, are old."""
    store = LocalStore(tmp_path / "store")
    publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="one", b="two"), store)
    manifest = make_tree(tmp_path / "tree", c="three")

    class Slow(Busy):
        def put(self, name, data):
            if name.endswith(MANIFEST):
                for path in (tmp_path / "store").rglob("*.png"):
                    os.utime(path, (0, 0))
                assert prune(store, 1) == []
            store.put(name, data)

    publish(tmp_path / "tree", manifest, Slow(store, "", None))
    assert {path.name for path in fetch(str(tmp_path / "store")).iterdir()} == {"a.png", "b.png", "c.png", MANIFEST}


def test_the_cache_keeps_the_last_two_versions_of_each_store(tmp_path, monkeypatch):
    stores = {url: LocalStore(tmp_path / url[-1]) for url in ("s3://bucket/a", "s3://bucket/b")}
    monkeypatch.setattr(versions, "open_store", stores.get)
    folders = []
    for text in ("one", "two", "three"):
        for url, store in stores.items():
            publish(tmp_path / "tree", make_tree(tmp_path / "tree", a=text, b=url[-1]), store)
            folders.append(fetch(url, cache=tmp_path / "cache"))
    assert all(folder.is_dir() for folder in folders), "somebody may train from them"
    for folder in folders:
        os.utime(folder, (folder.stat().st_mtime - 8 * 24 * 3600,) * 2)
    publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="four"), stores["s3://bucket/a"])
    fetch("s3://bucket/a", cache=tmp_path / "cache")
    assert [folder.is_dir() for folder in folders] == [False, True, False, True, True, True]


@pytest.mark.parametrize("path", ["../a", "/a", "a/../b", "a\\b", "c:a", "", "manifest.json", "./a"])
def test_a_manifest_that_leads_outside_is_refused(path):
    lie = Manifest([File(path, 1, "0" * 64)]).text()
    with pytest.raises(InputError, match="Expected a manifest in x"):
        Manifest.parse(lie, "x")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 2, "files": []}', b"\xff"])
def test_what_is_no_manifest_is_refused(content):
    with pytest.raises(InputError, match="Expected a manifest in x"):
        Manifest.parse(content, "x")


def test_fetch_names_what_is_damaged(tmp_path):
    store = LocalStore(tmp_path / "store")
    version, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="one"), store)
    url = (tmp_path / "store").as_uri()
    assert (fetch(url) / "a.png").read_text() == "one"
    assert fetch(f"{url}#{version}") == fetch(str(tmp_path / "store"))
    store.put(f"versions/{version}/a.png", b"two")
    with pytest.raises(InputError, match=r"a\.png, which has changed"):
        fetch(url)
    store.put(POINTER, b"{}")
    with pytest.raises(InputError, match=r"Expected a version in current\.json"):
        fetch(url)
    with pytest.raises(InputError, match="which the store does not have"):
        fetch(f"{url}#{'0' * 64}")


def test_a_manifest_under_another_name_is_refused(tmp_path):
    store = LocalStore(tmp_path / "store")
    version, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="one"), store)
    store.put(f"versions/{version}/{MANIFEST}", Manifest([]).text())
    with pytest.raises(InputError, match="to be the manifest of its version"):
        fetch(str(tmp_path / "store"))


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot fsync a folder")
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("write", ["put", "create", "copy"])
def test_a_power_cut_leaves_files_and_new_folders(tmp_path, monkeypatch, write, links):
    store, synced, fsync = LocalStore(tmp_path / "store"), [], os.fsync
    store.put("x", b"one")
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), fsync(handle)))
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    if write == "copy":
        store.copy("x", "a/b/c")
    else:
        getattr(store, write)("a/b/c", b"one")
    assert store.get("a/b/c") == b"one"
    for place in ("", "a", "a/b", "a/b/c"):
        assert (tmp_path / "store" / place).stat().st_ino in synced, place


def no_links(old, new):
    raise OSError(errno.EPERM, "Operation not permitted")


def test_one_of_many_creates_without_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    test_one_of_many_creates(LocalStore(tmp_path))
    assert not LocalStore(tmp_path).create("claim", b"another")


def test_a_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Expected a store that can be written"):
        LocalStore(tmp_path / "file").put("a", b"")


KILLED = """
import os, sys
from pathlib import Path
from imagesr.store import local
from imagesr.store import versions
from imagesr.store.local import LocalStore
from imagesr.store.versions import publish, read_tree
left = int(sys.argv[2])
place = local.put_in_place
def put_in_place(part, path):
    global left
    if not left:
        os._exit(9)
    left -= 1
    place(part, path)
local.put_in_place = put_in_place
folder = Path(sys.argv[1])
publish(folder / "tree", read_tree(folder / "tree"), LocalStore(folder / "store"))
"""


def test_killed_at_any_file_readers_see_the_old_version(tmp_path):
    store = LocalStore(tmp_path / "store")
    old, _ = publish(tmp_path / "tree", make_tree(tmp_path / "tree", a="one", b="two"), store)
    make_tree(tmp_path / "tree", a="1", b="2", c="3")
    ends = []
    for count in range(9):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(count)]
        ends.append(subprocess.run(command, check=False).returncode)
        folder = fetch(str(tmp_path / "store"))
        assert {path.name: path.read_text() for path in folder.glob("*.png")} == (
            {"a.png": "one", "b.png": "two"} if folder.name == old else {"a.png": "1", "b.png": "2", "c.png": "3"}
        )
        if ends[-1] == 0:
            break
    assert ends[0] == 9 and ends[-1] == 0
    assert folder.name != old
    assert json.loads(store.get(POINTER)) == {"version": folder.name}


def test_addresses():
    assert local_folder("a/b") == Path("a/b")
    assert local_folder("file:///a%20b") == Path("/a b")
    assert local_folder("s3://a/b") is None
    assert without_secrets("s3://key:secret@host/a?token=b") == "s3://host/a"
    assert without_secrets("a/b") == "a/b"
    assert without_secrets("https://host/@user/a@b") == "https://host/@user/a@b"
    assert without_secrets("sqlite:///a@b/mlflow.db") == "sqlite:///a@b/mlflow.db"


@pytest.mark.parametrize(
    "secret", ["", "me@", "me:pass@", "me:pa/ss@", "me:/p?a/ss@", "me:p@a/ss@", "me:pa@ss@", "me:a:b@", ":pass@"]
)
def test_no_password_of_a_database_is_told(secret):
    for scheme in ("postgresql", "postgresql+psycopg2", "mysql+pymysql", "PostgreSQL"):
        for query in ("", "?password=pass", "?password=p@ss/x@y"):
            assert without_secrets(f"{scheme}://{secret}host/db{query}") == f"{scheme}://host/db"


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_REGION", "AWS_SESSION_TOKEN"])
def test_an_empty_variable_is_not_set(monkeypatch, name):
    pytest.importorskip("obstore", reason="needs obstore (pip install 'imagesr[store]')")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9" if variable == "AWS_ENDPOINT_URL" else "x")
    monkeypatch.setenv(name, "")
    open_store("s3://bucket/data")
    assert name not in os.environ


@pytest.mark.parametrize("url", ["nonsense://x", "s3://"])
def test_an_address_that_is_none(url):
    pytest.importorskip("obstore", reason="needs obstore (pip install 'imagesr[store]')")
    with pytest.raises(ValueError, match="Expected a folder or an address"):
        open_store(url)
