"""Each verb on good input: what it prints, what it writes, what others may rely on."""

import io
import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from families import build, save_family
from results import refused
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from eckart import Edit, clip_
from eckart.cli import main
from eckart.errors import ModelError
from eckart.scoring.methods import METHODS


def document(ended) -> dict:
    assert ended.status == 0, ended.err
    return json.loads(ended.out)


def test_help_answers_without_torch():
    program = (
        "import sys; from eckart.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True
    )
    assert "search" in run.stdout
    assert run.stdout.strip().endswith("[]")


def test_importing_the_package_is_lean():
    program = (
        "import sys, eckart; eckart.Edit, eckart.EckartError; print({'torch', 'transformers'} &"
        " set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


def test_public_names_are_there():
    import eckart

    assert all(getattr(eckart, name) for name in eckart.__all__)
    assert set(eckart.__all__) < set(dir(eckart))
    with pytest.raises(AttributeError):
        eckart.nothing  # noqa: B018


def test_inspect(eckart, model):
    found = document(eckart("inspect", model, "--json"))
    first = found["layers"][0]
    assert [layer["layer"] for layer in found["layers"]] == [0, 1, 2]
    assert {"name", "part", "shape", "fused", "tied"} <= set(first["matrices"][0])
    assert [m["name"] for m in first["matrices"]] == ["q", "k", "v", "o", "gate", "up", "down"]
    assert found["parameters"] == sum(
        p.numel() for p in AutoModelForCausalLM.from_pretrained(model).parameters()
    )
    assert "0 to 2" in eckart("inspect", model).out


def test_spectrum_equals_numpy_and_draws_the_figure(eckart, model, tmp_path):
    found = document(eckart("spectrum", model, "--json", "--plot", tmp_path / "figure.svg"))
    weights = AutoModelForCausalLM.from_pretrained(model).state_dict()
    assert len(found["matrices"]) == 21
    for matrix in found["matrices"]:
        values = torch.linalg.svdvals(weights[matrix["path"]].double())
        assert matrix["sigma_max"] == pytest.approx(float(values[0]), rel=1e-6)
        assert matrix["sigma_min"] == pytest.approx(float(values[-1]), rel=1e-6)
        assert matrix["condition_number"] == pytest.approx(float(values[0] / values[-1]), rel=1e-6)
        assert matrix["resolved"]
        assert 0 < matrix["rounding"] < matrix["sigma_min"]
    assert "condition number" in (tmp_path / "figure.svg").read_text()
    assert found["loaded_whole"] is False
    assert json.loads((tmp_path / "runs/tiny-llama-spectrum/result.json").read_text()) == found
    assert "sigma min" in eckart("spectrum", model, "--part", "attn").out
    assert (tmp_path / "runs/tiny-llama-spectrum/condition-numbers.png").stat().st_size > 1000


def test_spectrum_goes_on_where_it_was(eckart, model, monkeypatch):
    some = document(
        eckart("spectrum", model, "--json", "--layers", "0,-1", "--part", "mlp", "--out", "run")
    )
    assert [(m["layer"], m["name"]) for m in some["matrices"]] == [
        (layer, name) for layer in (0, 2) for name in ("gate", "up", "down")
    ]
    monkeypatch.setattr("eckart.weights.spectrum.spectrum_of", None)
    again = document(
        eckart("spectrum", model, "--json", "--layers", "0,2", "--part", "mlp", "--out", "run")
    )
    assert again == some


def matrices_of(ended):
    """How many matrices of each model a report speaks of."""
    return [int(number) for number in re.findall(r"[Oo]f (\d+) matri", ended.out)]


def test_a_spectrum_s_report_is_of_the_weights_as_they_are(eckart, model, tmp_path):
    one = shutil.copytree(model, tmp_path / "one")
    before = document(eckart("spectrum", one, "--part", "q", "--json", "--out", "run"))
    tensors = load_file(one / "model.safetensors")
    save_file(
        {k: v + 1 if "q_proj" in k else v for k, v in tensors.items()}, one / "model.safetensors"
    )
    after = document(eckart("spectrum", "./one", "--part", "q", "--json", "--out", "run"))
    shown = {
        row["condition_number"]
        for row in document(eckart("report", "run", "--json"))["tables"]["spectra"]
    }
    assert shown == {m["condition_number"] for m in after["matrices"]}
    assert shown.isdisjoint(m["condition_number"] for m in before["matrices"])
    assert matrices_of(eckart("report", "run")) == [3]

    save_family("gpt2", tmp_path / "other")
    eckart("spectrum", "other", "--part", "q", "--out", "run")
    assert matrices_of(eckart("report", "run")) == [3, 3], "two models in one folder are two"


def test_spectrum_of_half_precision_says_where_it_ends(eckart, tmp_path):
    model = build("llama").bfloat16()
    clip_(model, Edit(1, "q", 0.5))
    model.save_pretrained(tmp_path / "half")
    by_name = {
        m["name"]: m
        for m in document(eckart("spectrum", "half", "--layers", "1", "--json"))["matrices"]
    }
    assert not by_name["q"]["resolved"]
    assert not by_name["q"]["singular"], "storage has filled its zeros"
    assert by_name["up"]["resolved"]
    assert "'Within rounding': storage in this dtype," in eckart("spectrum", "half").out


@pytest.mark.filterwarnings("default:the checkpoint of")
def test_spectrum_of_a_mixture_is_read_whole_and_says_so(eckart, tmp_path):
    build("mixtral").save_pretrained(tmp_path / "mixture")
    ended = eckart("spectrum", "mixture", "--json")
    assert document(ended)["loaded_whole"] is True
    assert (
        "note: the checkpoint of 'mixture' does not hold the model's matrices one for one"
        in ended.err
    )


def test_evaluate_writes_what_it_read_and_found(eckart, model, own_task, tmp_path):
    arguments = [
        "evaluate",
        model,
        *own_task,
        "--split",
        "all",
        "--predictions",
        "rows.jsonl",
        "--with-prompts",
        "--json",
    ]
    found = document(eckart(*arguments))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert found["n"] == len(rows) == 56
    assert found["edits"] == []
    assert sum(map(sum, found["confusion"])) == 56
    assert found["accuracy"] == pytest.approx(sum(r["label"] == r["prediction"] for r in rows) / 56)
    for row in rows:
        assert (
            row["prediction"]
            == found["labels"][row["log_likelihoods"].index(max(row["log_likelihoods"]))]
        )
        assert row["context"].count("\n") == 9
        assert row["continuations"] == [" bad", " good"]


def test_evaluate_equals_a_plain_loop_over_what_it_says_it_read(eckart, model, own_task, tmp_path):
    edits = ["--edit", "0:attn:0.5", "--edit", "-1:mlp:0.75"]
    found = document(
        eckart(
            "evaluate",
            model,
            *own_task,
            *edits,
            "--predictions",
            "rows.jsonl",
            "--with-prompts",
            "--json",
            "--dtype",
            "float32",
        )
    )
    assert found["edits"] == ["0:attn:0.5", "2:mlp:0.75"]
    plain, tokenizer = (
        AutoModelForCausalLM.from_pretrained(model),
        AutoTokenizer.from_pretrained(model),
    )
    clip_by_hand(plain, {0: ("self_attn", 0.5), 2: ("mlp", 0.75)})
    for row in map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines()[:5]):
        context = tokenizer(row["context"])["input_ids"]
        for text, value in zip(row["continuations"], row["log_likelihoods"], strict=True):
            whole = tokenizer(row["context"] + text)["input_ids"]
            with torch.no_grad():
                logits = plain(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            expected = sum(float(logits[i - 1, whole[i]]) for i in range(len(context), len(whole)))
            assert value == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def clip_by_hand(model, parts) -> None:
    for layer, (block, rate) in parts.items():
        for module in getattr(model.model.layers[layer], block).children():
            if isinstance(module, torch.nn.Linear):
                u, s, vt = torch.linalg.svd(module.weight.double(), full_matrices=False)
                rank = max(1, int((1 - rate) * len(s) + 1e-9))
                module.weight.copy_((u[:, :rank] * s[:rank]) @ vt[:rank])


def test_evaluate_shows_prompts_and_scores_in_every_way(eckart, model, own_task, tmp_path):
    ended = eckart(
        "evaluate", model, *own_task, "--show", "2", "--predictions", "rows.jsonl", "--with-prompts"
    )
    assert ended.status == 0
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert f"--- {first['id']}\n{first['context']}\n' bad'\n' good'\n--- " in ended.out
    (verdict,) = [line for line in ended.out.splitlines() if ", unpruned: accuracy" in line]
    assert f"{model} on reviews validation, unpruned: accuracy 0." in verdict
    assert verdict.endswith("; n = 25; one draw of demonstrations, seed 0).")
    assert "confusion" not in ended.out
    assert "predicted bad" in ended.out
    words = ["--labels", "good=excellent,bad=bad"]
    methods = [method for method in METHODS if method != "logit"]
    ways = [
        document(eckart("evaluate", model, *own_task, *words, "--scoring", way, "--json"))
        for way in methods
    ]
    assert [found["scoring"] for found in ways] == methods
    assert len({found["log_loss"] for found in ways}) == len(methods)


def test_rows_are_shown_before_the_model_reads_any(eckart, model, own_task, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("eckart.scoring.evaluator.Evaluator.outcomes", interrupt)
    ended = eckart("evaluate", model, *own_task, "--show", "1")
    assert ended.status == 130
    assert ended.out.startswith("--- ")
    assert ended.out.rstrip().endswith("' bad'\n' good'")


def test_a_limit_reads_the_first_rows_alone(eckart, model, own_task):
    line = ["evaluate", model, *own_task, "--edit", "0:mlp:0.9", "--json"]
    few = document(eckart(*line, "--limit", "7"))
    assert (few["n"], few["split"]) == (7, "validation[0:7]")
    assert document(eckart(*line, "--limit", "99"))["split"] == "validation"
    refused(eckart(*line, "--limit", "7", "--scoring", "batch"), "--limit")


PROMISED = {
    "evaluate": (
        "task model split n edits accuracy balanced_accuracy macro_f1 log_loss majority_rate"
        " confusion dtype seconds"
    ),
    "search": (
        "layer part rate condition_numbers candidates test candidates_tried parameters published"
    ),
    "spectrum": "matrices",
    "inspect": "layers parameters",
}


@pytest.mark.parametrize("verb", PROMISED)
def test_the_keys_that_other_programs_rely_on(eckart, model, own_task, verb):
    task = own_task if verb in ("evaluate", "search") else []
    assert set(PROMISED[verb].split()) <= set(document(eckart(verb, model, *task, "--json")))


def test_interrupting_ends_with_130_and_a_fault_of_ours_with_1(
    eckart, model, own_task, monkeypatch
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("eckart.scoring.evaluator.Evaluator.outcomes", interrupt)
    ended = eckart("search", model, *own_task, "--out", "run")
    assert (ended.status, ended.out) == (130, "")
    assert "the same command goes on" in ended.err
    ended = eckart("evaluate", model, *own_task)
    assert ended.status == 130
    assert "interrupted; nothing new was kept" in ended.err

    def fault(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("eckart.scoring.evaluator.Evaluator.outcomes", fault)
    ended = eckart("evaluate", model, *own_task)
    assert (ended.status, ended.out) == (1, "")
    assert "Traceback" in ended.err


@pytest.mark.parametrize("error", [RecursionError, ModelError])
def test_whatever_an_interrupt_breaks_is_an_interrupt(eckart, model, own_task, monkeypatch, error):
    def interrupted(*_, **__):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error("an import half done") from None

    monkeypatch.setattr("eckart.weights.models.load_model", interrupted)
    ended = eckart("evaluate", model, *own_task)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (ended.status, ended.out) == (130, "")
    assert "fault" not in ended.err


def test_search_gives_all_it_promises(eckart, model, own_task, tmp_path):
    ended = eckart(
        "search",
        model,
        *own_task,
        "--rates",
        "0,0.5,0.9",
        "--out",
        "run",
        "--json",
    )
    found = document(ended)
    assert set(found["condition_numbers"]) == {"0", "1", "2"}
    assert [c["rate"] for c in found["candidates"]] == [0.0, 0.5, 0.9]
    assert found["candidates_tried"] == 3
    assert found["candidates"][1]["ranks"] == {"gate": 16, "up": 16, "down": 16}
    test = found["test"]
    assert test["n"] == test["baseline"]["n"] == test["clipped"]["n"]
    assert test["difference"] == pytest.approx(
        test["clipped"]["accuracy"] - test["baseline"]["accuracy"]
    )
    assert test["interval"][0] <= test["difference"] <= test["interval"][1]
    assert 0 < test["p_value"] <= 1
    assert test["difference"] * test["n"] == pytest.approx(test["fixed"] - test["broken"])
    best = max(c["validation"]["accuracy"] for c in found["candidates"])
    assert found["rate"] == next(
        c["rate"] for c in found["candidates"] if c["validation"]["accuracy"] == best
    )
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test"] == test
    assert (tmp_path / "run" / "validation.png").stat().st_size > 1000
    assert "saved" not in found


def test_where_nothing_is_clipped_nothing_is_saved(eckart, model, own_task, tmp_path):
    line = ["search", model, *own_task, "--rates", "0", "--layer", "0", "--save", "copy"]
    ended = eckart(*line, "--out", "run")
    assert ended.status == 0, ended.err
    said = " ".join(ended.err.split())
    assert "nothing was clipped, so nothing was saved" in said
    assert document(eckart(*line, "--out", "run", "--json"))["saved"] is None
    assert not (tmp_path / "copy").exists()
    assert eckart("export", "run", "--out", "copy", "--unclipped").status == 0


def test_a_search_that_is_asked_again_recomputes_nothing(
    eckart, model, own_task, tmp_path, monkeypatch
):
    first = document(
        eckart("search", model, *own_task, "--rates", "0,0.5", "--out", "run", "--json")
    )

    def refuse(*_):
        raise AssertionError("a kept trial was computed again")

    monkeypatch.setattr("eckart.scoring.evaluator.Evaluator.outcomes", refuse)
    monkeypatch.setattr("eckart.weights.spectrum.measure", refuse)
    assert (
        document(eckart("search", model, *own_task, "--rates", "0,0.5", "--out", "run", "--json"))
        == first
    )


def test_a_race_says_what_it_read(eckart, model, tmp_path):
    rows = "".join(f"text {i} of {i * i},{('good', 'bad')[i % 2]}\n" for i in range(340))
    (tmp_path / "many.csv").write_text("review,verdict\n" + rows)
    task = [
        "--data",
        "many.csv",
        "--text-column",
        "review",
        "--label-column",
        "verdict",
        "--shots",
        "2",
    ]
    search = ["search", model, *task, "--split-sizes", "300,30", "--rates", "0.5,0.99", "--race"]
    ended = eckart(*search, "--json")
    found = document(ended)
    seen = [candidate["seen"] for candidate in found["candidates"]]
    assert found["race"]["looks"][0] == 75
    assert found["race"]["alpha"] == 0.05
    assert (found["race"]["rows_read"], found["race"]["rows_without"]) == (sum(seen), 900)
    assert [candidate["validation"]["n"] for candidate in found["candidates"]] == seen
    assert ended.err.count("dropped after") == len(found["race"]["drops"])
    assert f"raced: {sum(seen)} of 900 rows read" in eckart(*search).out
    ended = eckart(*search, "--metric", "macro_f1")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "leave out --race" in ended.err


def test_the_default_run_folder_belongs_to_its_settings(eckart, model, own_task, tmp_path):
    assert eckart("search", model, *own_task, "--rates", "0,0.5", "--layer", "-1").status == 0
    ended = eckart("search", model, *own_task, "--rates", "0,0.9", "--layer", "1", "--part", "attn")
    assert "layer 1, attn" in ended.out
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_version(eckart):
    assert eckart("--version").out.count(".") == 2


def test_alone_it_says_what_to_try_first_and_h_is_help_everywhere(eckart):
    alone = eckart()
    assert alone.status == 0
    assert "eckart demo" in alone.out
    for verb in ([], ["search"], ["theory", "check"], ["functions", "train"]):
        assert "Usage" in eckart(*verb, "-h").out
    assert "Such as:" in eckart("predict", "-h").out


@pytest.mark.parametrize("labels", ["good=[/x],bad=[bold]yes", "good=:smile:,bad=\x1b[31mred"])
def test_labels_are_shown_as_they_are(eckart, model, own_task, labels):
    ended = eckart("evaluate", model, *own_task, "--labels", labels)
    assert ended.status == 0, ended.err
    assert "\x1b" not in ended.out
    assert "[/x]" in ended.out or ":smile:" in ended.out


def test_many_labels_do_not_squeeze_the_table(eckart, model, tmp_path):
    rows = "".join(f"text {i},class{i % 12:02}\n" for i in range(120))
    (tmp_path / "many.csv").write_text("review,verdict\n" + rows)
    ended = eckart(
        "evaluate",
        model,
        "--data",
        "many.csv",
        "--text-column",
        "review",
        "--label-column",
        "verdict",
        "--shots",
        "0",
    )
    assert "confusion of 12 labels: see --json" in ended.out


def test_a_path_with_a_dollar_is_no_formula(eckart, model, tmp_path):
    shutil.copytree(model, tmp_path / "m_$\\frac{x$y")
    assert eckart("spectrum", "./m_$\\frac{x$y", "--plot", "f.png").status == 0


def test_an_ascii_terminal_gets_escapes(model, tmp_path, monkeypatch):
    rows = "".join(f"text {i},{('été', '好')[i % 2]}\n" for i in range(40))
    (tmp_path / "d.csv").write_text("review,verdict\n" + rows, encoding="utf-8")
    task = ["--data", "d.csv", "--text-column", "review", "--label-column", "verdict"]
    said = ["eckart", "evaluate", model, *task, "--shots", "2", "--show", "1"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(word) for word in said])
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit) as ended:
        main()
    sys.stdout.flush()
    assert ended.value.code == 0
    assert b"\\xe9t\\xe9" in sys.stdout.buffer.getvalue()
