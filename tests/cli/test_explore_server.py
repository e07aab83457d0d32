"""The explorer's server, without a browser: who is let in, what is refused, what is stopped."""

import http.client
import json
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from served import ask, explorer_of, serving

from eckart.cli.explore.explorer import StoppedError
from eckart.cli.explore.server import FILES, listening


@pytest.fixture
def explorer(model, table, tmp_path):
    made = explorer_of(model, table, tmp_path / "run")
    yield made
    made.close()


@pytest.fixture
def address(explorer):
    with serving(explorer) as where:
        yield where


def test_who_has_not_the_token_gets_nothing(address):
    where, _, _ = address.rstrip("/").rpartition("/")
    for path in (*FILES, "ask/about"):
        data = b"{}" if "ask" in path else None
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{where}/guessed/{path}", data)
        with refused.value:
            assert refused.value.code == 403
    for path, kind in (("", "text/html"), ("style.css", "text/css")):
        with urllib.request.urlopen(f"{address}{path}") as answer:
            assert answer.headers["Content-Type"].startswith(kind)
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{address}explorer.py")
    with refused.value:
        assert refused.value.code == 404


def test_who_comes_by_another_name_gets_nothing(address):
    host, _, path = address.removeprefix("http://").partition("/")
    port = host.rpartition(":")[2]

    def asked(path, **headers):
        tab = http.client.HTTPConnection(host)
        tab.request("GET", f"/{path}", headers=headers)
        answer = tab.getresponse()
        answer.read()
        tab.close()
        return answer.status, answer.headers["Location"]

    for name in ("127.0.0.1", "localhost", "[::1]"):
        own = f"{name}:{port}"
        assert asked(path, Host=own, Origin=f"http://{own}") == (200, None)
        assert asked(path.rstrip("/"), Host=own) == (307, f"http://{own}/{path}")
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port}1"):
        for where in (path, path.rstrip("/")):
            assert asked(where, Host=name) == (421, None)
            assert asked(where, Origin=f"http://{name}") == (421, None)
    assert asked(path, Origin="null") == (421, None)


def test_wrong_questions_are_refused_in_a_line(address):
    assert ask(address, "look", edits=["9:mlp:0.5"])[0] == 422
    status, said = ask(address, "look", edits=["1:mlp:2"])
    assert (status, "outside [0, 1)" in said["error"]) == (422, True)
    assert ask(address, "look", edits=["1:mlp:0.5", "1:up:0.9"])[0] == 422
    assert ask(address, "weather")[0] == 404
    nonsense = (b"no JSON", b"[1]", b"[" * 90_000, b'{"edits":5}', b'{"edits":[[1]]}')
    for body in (*nonsense, b'{"fields":[1,2]}', b'{"fields":"x"}', b'{"fields":{"review":1}}'):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}ask/text", body)
        with refused.value:
            assert refused.value.code == 400
            assert json.load(refused.value) == {"error": "this is no question, but something else"}
    # It may hang up before all of what is too long was sent.
    with pytest.raises((urllib.error.URLError, ConnectionError)) as refused:
        urllib.request.urlopen(f"{address}ask/look", b"{}" + b" " * 1_000_000)
    if isinstance(refused.value, urllib.error.HTTPError):
        with refused.value:
            assert refused.value.code == 413


@pytest.fixture
def slow(explorer, monkeypatch):
    """Looks that go on until nobody waits for them; who began and who was stopped."""
    begun, ended = [], []

    def look(edits, stop):
        begun.append(str(edits[0]))
        while not stop.is_set() and str(edits[0]) != "1:mlp:0.9":
            time.sleep(0.01)
        ended.append(str(edits[0]))
        if stop.is_set():
            raise StoppedError
        return {"edits": list(map(str, edits))}

    monkeypatch.setattr(explorer, "look", look)
    return begun, ended


def waited(what):
    for _ in range(500):
        if what():
            return True
        time.sleep(0.01)
    return False


def test_a_newer_look_of_a_tab_takes_the_place_of_an_older_one(slow, address):
    begun, _ = slow
    answers = {}

    def first():
        answers["first"] = ask(address, "look", edits=["1:mlp:0.5"])

    thread = threading.Thread(target=first)
    thread.start()
    assert waited(lambda: begun)
    status, far = ask(address, "progress")
    assert (status, set(far)) == (200, {"what", "rows", "done"})
    assert ask(address, "look", edits=["1:mlp:0.9"]) == (200, {"edits": ["1:mlp:0.9"]})
    thread.join()
    assert answers["first"] == (409, {"error": "stopped"})


def test_a_closed_tab_stops_its_own_work_alone(slow, address):
    begun, ended = slow
    host, _, path = address.removeprefix("http://").partition("/")
    tab = http.client.HTTPConnection(host)
    tab.request("POST", f"/{path}ask/look", json.dumps({"tab": "two", "edits": ["1:mlp:0.5"]}))
    assert waited(lambda: begun)
    assert not ended
    other = {}
    thread = threading.Thread(
        target=lambda: other.update(it=ask(address, "look", edits=["1:mlp:0.9"]))
    )
    thread.start()
    time.sleep(0.2)
    assert not ended  # another tab waits for its turn, and stops nothing
    tab.close()
    assert waited(lambda: ended)
    thread.join()
    assert other["it"] == (200, {"edits": ["1:mlp:0.9"]})


def test_the_page_is_for_this_machine_alone(eckart, model, own_task, tmp_path):
    for host in ("0.0.0.0", "192.168.1.1", "example.org"):
        ended = eckart("explore", model, *own_task, "--host", host)
        assert ended.status == 2
        assert f"--host {host} is not this machine alone" in ended.err
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        ended = eckart("explore", model, *own_task, "--port", port)
        assert ended.status == 2
        assert f"port {port} of 127.0.0.1 cannot be used" in ended.err
    assert not (tmp_path / "runs").exists()


def test_without_the_extra_it_says_what_to_install(eckart, model, own_task, monkeypatch):
    monkeypatch.delitem(sys.modules, "eckart.cli.explore.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ended = eckart("explore", model, *own_task)
    assert ended.status == 2
    assert "pip install 'eckart[explore]'" in ended.err


def test_an_address_of_the_newer_kind():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    with listening("::1", 0) as bound:
        assert bound.getsockname()[0] == "::1"
