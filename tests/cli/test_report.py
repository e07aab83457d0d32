"""`eckart report` on the command line."""

import io
import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor

from made_runs import Made
from rich.console import Console

import eckart as package
from eckart.reports.claims import published_table
from eckart.reports.results import record_report


def test_it_writes_beside_the_run_and_says_what_was_found(eckart, tmp_path):
    Made(rows=30).write(tmp_path / "run")
    ended = eckart("report", "run", "--format", "md")
    assert ended.status == 0
    assert (tmp_path / "run" / "report.md").is_file()
    assert "12 edits beside" in ended.out


def test_json_is_one_document_and_writes_nothing(eckart, tmp_path):
    Made(rows=30).write(tmp_path / "run")
    ended = eckart("report", "run", "--json")
    assert json.loads(ended.out)["tables"]["choices"][0]["tried"] == 12
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.sqlite"]


def test_the_published_record(eckart, tmp_path):
    assert "Table 7" in eckart("report", "published").out
    assert eckart("report", "published", "--out", "page.html").status == 0
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_the_published_record_is_printed_as_a_table_the_papers_first(eckart):
    lines = [line.strip() for line in eckart("report", "published").out.splitlines()]
    assert max(map(len, lines)) <= 160
    llama = [
        line for line in lines[lines.index("llama-2-7b") :] if line.startswith(("Table ", "log:"))
    ]
    assert [line[:7] for line in llama[:2]] == ["Table 2", "Table 2"]
    assert [line[:7] for line in llama] == sorted(line[:7] for line in llama)
    assert sum(line.startswith(("Table ", "log:")) for line in lines) == 28 + 36


def test_the_published_record_fits_a_terminal():
    console = Console(width=80, file=io.StringIO())
    console.print(record_report(published_table().rows), soft_wrap=True)
    assert "…" not in console.file.getvalue()


def test_the_published_record_in_the_format_that_was_asked_for(eckart):
    assert eckart("report", "published", "--format", "csv").out.startswith("source,model,task,part")
    assert eckart("report", "published", "--format", "html").out.startswith("<!DOCTYPE html>")
    assert eckart("report", "published", "--format", "md").out.startswith("# The published results")
    assert (
        json.loads(eckart("report", "published", "--json").out)["published"][0]["source"]
        == "Table 2"
    )
    for arguments, says in {
        ("--figures", "f"): "no figures",
        ("--open",): "--open is of a run's report",
        ("--format", "doc"): "no report format",
    }.items():
        ended = eckart("report", "published", *arguments)
        assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert says in ended.err


def test_what_is_refused_is_said_in_one_line(eckart, tmp_path):
    Made(rows=30).write(tmp_path / "run")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.sqlite").write_bytes(b"no database" * 100)
    with sqlite3.connect(tmp_path / "run" / "run.sqlite") as database:
        database.execute("UPDATE rows SET digest = digest || 'x'")
    database.close()
    for arguments, says in {
        ("absent",): "holds no run",
        ("damaged",): "damaged run.sqlite",
        ("run",): "lacks the rows",
        ("run", "--format", "doc"): "no report format 'doc'",
        ("run", "--out", "no/such/report.html"): "cannot be written",
        ("run", "--out", "run/run.sqlite"): "is the run itself",
    }.items():
        ended = eckart("report", *arguments)
        assert (ended.status, ended.out) == (2, ""), arguments
        assert says in ended.err
        assert ended.err.count("\n") == 1


def test_a_folder_whose_name_is_no_text(eckart, tmp_path):
    strange = Made(rows=30).write(tmp_path / os.fsdecode(b"caf\xe9"))
    for form in ("html", "md", "csv", "json"):
        ended = eckart("report", strange, "--format", form)
        assert ended.status == 0, ended.err
    assert r"caf\udce9" in (strange / "report.html").read_text()


def test_a_page_that_goes_into_a_pipe_has_no_picture_beside_it(tmp_path):
    pipe = tmp_path / "pipe.html"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        page = reader.submit(pipe.read_bytes)
        package.report(Made(rows=30).write(tmp_path / "run"), pipe)
        assert page.result().startswith(b"<!DOCTYPE html>")
    assert not pipe.with_suffix(".png").exists()


def test_several_runs_are_one_page_and_a_picture(eckart, tmp_path, monkeypatch):
    plain, better = (Made(rows=30, base=base).write(tmp_path / f"{base}") for base in (0.6, 0.7))
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: not opened.append(address))
    out = tmp_path / "both.html"
    ended = eckart("report", str(plain), str(better), "--out", str(out), "--open")
    assert ended.status == 0
    assert opened == [out.as_uri()]
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    ended = eckart("report", str(plain), str(better), "--json")
    assert json.loads(ended.out)["tables"]["compared"][0]["run"] == "0.7"
    refused = eckart("report", str(plain), "--json", "--open")
    assert (refused.status, "--open shows a page" in refused.err) == (2, True)
