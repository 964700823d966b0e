"""From adapter to GGUF with a tiny model: the real merge, converter, quantiser and template engine, and planted faults."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from toolcall_pipeline.artifacts import Artifact, sha256_file
from toolcall_pipeline.errors import ArtifactError, ExportError, MissingInputError, TrainingError
from toolcall_pipeline.export import convert, llama_cpp_source
from toolcall_pipeline.export import stage as export_stage
from toolcall_pipeline.export.llama_server import LlamaServer
from toolcall_pipeline.export.quantise import describe, quantise
from toolcall_pipeline.export.stage import compare_forms, export_base_gguf, export_gguf, gguf_file
from toolcall_pipeline.export.template_parity import measure_parity
from toolcall_pipeline.gates import gguf_q6k, merged_model
from toolcall_pipeline.gates.profiles import rule_for
from toolcall_pipeline.gates.verdict import GateContext, Verdict
from toolcall_pipeline.training import merge as merge_module
from toolcall_pipeline.training.gguf_header import read_gguf_header
from toolcall_pipeline.training.merge import merge_adapter, probes_of, require_disk
from toolcall_pipeline.training.process import trainable_state
from toolcall_pipeline.training.trainer import quiet_libraries
from toolcall_pipeline_tests.export.conftest import PROMPTS, write_tiny
from toolcall_pipeline_tests.training.conftest import PARTITION, context_of, make_rows, write_rows

pytestmark = pytest.mark.filterwarnings("default")  # torch, transformers and peft warn about each other

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="session")
def adapter_home(tmp_path_factory: pytest.TempPathFactory, configuration, tiny_base: Path) -> Path:
    """Make a home with a dataset, and an adapter whose B matrices are not zero, as a training would leave it."""
    import torch
    from peft import LoraConfig, get_peft_model

    from toolcall_pipeline.training.base_model import load_model_folder, resolve_base

    context = context_of(configuration, tmp_path_factory.mktemp("adapter") / "home", {})
    with context.artifacts.build("v2_chat_dataset", PARTITION, recipe_of_artifact={"x": 1}) as build:
        write_rows(build.directory / "train.encoded.parquet", make_rows(8))
        write_rows(build.directory / "valid.encoded.parquet", make_rows(8, seed=1))
        (build.directory / "valid.chat.jsonl").write_text("")
        build.metadata["suite_sha256"] = "abc"
    info = resolve_base(context.configuration.base, context.settings.cache_dir)
    torch.manual_seed(1)
    targets = list(context.configuration.training.target_modules)
    lora = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    with quiet_libraries():
        model = get_peft_model(load_model_folder(tiny_base), lora)
    for name, tensor in trainable_state(model).items():
        if "lora_B" in name:
            tensor.data.normal_(0, 0.05)
    with context.artifacts.build("lora_adapter", PARTITION, recipe_of_artifact={"base_sha256": info.sha256}) as build:
        model.save_pretrained(build.directory / "adapter")
        (build.directory / "base_model.json").write_text(json.dumps(info.to_json()))
        build.metadata["precision"] = "fp32"
    return context.settings.home_dir


@pytest.fixture(scope="session")
def exported_home(tmp_path_factory: pytest.TempPathFactory, configuration, adapter_home: Path) -> Path:
    """Make a home that went on to the merged model and the file that ships, once for all tests that only look."""
    home = tmp_path_factory.mktemp("exported") / "home"
    shutil.copytree(adapter_home, home)
    context = context_of(configuration, home, {})
    dataset = context.artifacts.require("v2_chat_dataset", PARTITION)
    merged = merge_adapter(
        context, context.artifacts.require("lora_adapter", PARTITION), dataset, validate=suite_run
    )  # fmt: skip
    export_gguf(context, merged, dataset, parity_prompts=PROMPTS, validate=suite_run)
    return home


@pytest.fixture
def adapter(make_context, adapter_home: Path) -> Artifact:
    context = make_context()
    if not context.settings.home_dir.exists():
        shutil.copytree(adapter_home, context.settings.home_dir)
    return context.artifacts.require("lora_adapter", PARTITION)


@pytest.fixture
def exported(make_context, exported_home: Path) -> tuple[Artifact, Artifact]:
    context = make_context()
    shutil.copytree(exported_home, context.settings.home_dir)
    return tuple(context.artifacts.require(asset, PARTITION) for asset in ("merged_model", "gguf_q6k"))


@pytest.fixture
def dataset(make_context, request: pytest.FixtureRequest) -> Artifact:
    request.getfixturevalue("exported" if "exported" in request.fixturenames else "adapter")
    return make_context().artifacts.require("v2_chat_dataset", PARTITION)


def judge(context, artifact: Artifact, module) -> dict[str, Verdict]:
    return {
        gate.name: gate.judge(
            GateContext(
                artifact, PARTITION, context.artifacts, context.engine, context.configuration,
                rule_for(context.configuration, gate.asset, gate.name),
            )
        ).verdict
        for gate in module.GATES
        if not gate.name.startswith("validator")
    }  # fmt: skip


def suite_run(path: Path) -> dict:
    """Return what a validator leaves: suite D, one case parsed."""
    return {
        "model": {"name": "tiny", "sha256": "0" * 64, "backend": "test"}, "suite_version": "1", "suite_sha256": "abc",
        "seconds": 3.5,
        "results": [
            {"suite": "D", "case_id": "d1", "cluster_id": "d1", "seed": 0, "outcome": "pass", "passed": True,
             "measures": {"parsed": True}, "seconds": 1.25},
        ],
    }  # fmt: skip


def test_an_honest_merge_and_export_pass_their_gates(make_context, exported, dataset: Artifact) -> None:
    context = make_context()
    merged, gguf = exported
    assert set(judge(context, merged, merged_model).values()) == {Verdict.PASS}
    assert set(judge(context, gguf, gguf_q6k).values()) == {Verdict.PASS}
    path = gguf_file(gguf)
    header = read_gguf_header(path)
    assert gguf.manifest.metadata["gguf_sha256"] == sha256_file(path)
    assert (gguf.directory / "SHA256SUMS").read_text() == f"{sha256_file(path)}  {path.name}\n"
    assert path.name.endswith(f"-v3-{PARTITION}-Q6_K.gguf")
    assert header.fields["general.license"] == "apache-2.0"
    assert header.fields["toolcall_pipeline.dataset_sha256"] == dataset.sha256
    assert header.fields["toolcall_pipeline.recipe"] == "v3"
    report = describe(path, "Q6_K")
    assert report.fallback_tensors == ()
    assert 6.5 < report.bits_per_weight < 6.7
    assert merged.manifest.metadata["adapted_changed_count"] == merged.manifest.metadata["adapted_count"] == 14
    assert "seconds" not in json.loads(gguf.path("validator.json").read_text())
    assert merged.manifest.metadata["suite_sha256"] == gguf.manifest.metadata["suite_sha256"] == "abc"
    again = export_gguf(context, merged, dataset, parity_prompts=PROMPTS)
    assert again.sha256 == gguf.sha256


def test_a_merge_in_bf16_is_stored_in_bf16_and_compared_without_its_arithmetic(
    make_context, adapter, dataset, tiny_base, tmp_path
) -> None:
    import torch
    from safetensors.torch import load_file

    probes = probes_of(make_context(), dataset)
    comparison = merge_module.merge_and_compare(
        tiny_base, adapter.directory / "adapter", tmp_path / "model", probes, "bfloat16"
    )
    assert {tensor.dtype for tensor in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    assert comparison.same_top_ratio == 1.0
    assert comparison.mean_kl < 0.001
    assert [len(row) for row in comparison.same_top] == [len(probe.positions) for probe in probes]


def test_few_positions_do_not_pass_under_ship_and_the_interval_is_drawn(make_context, exported) -> None:
    merged, gguf = exported
    context = make_context(evaluation={"profile": "ship", "cases_per_suite": None})
    for artifact, module, name in ((merged, merged_model, "merge_equivalence"), (gguf, gguf_q6k, "quant_equivalence")):
        gate = next(gate for gate in module.GATES if gate.name == name)
        rule = rule_for(context.configuration, artifact.manifest.asset, name)
        arguments = (artifact, PARTITION, context.artifacts, context.engine, context.configuration)
        result = gate.judge(GateContext(*arguments, rule))
        assert (result.verdict, result.n < 1000) == (Verdict.FAIL, True)
        assert result.interval is not None
        assert result.interval.low < result.measured <= result.interval.high
        enough = rule.model_copy(update={"parameters": rule.parameters | {"min_n": result.n}})
        assert gate.judge(GateContext(*arguments, enough)).verdict is Verdict.PASS


def test_quantisations_are_compared_in_pairs_over_the_same_positions() -> None:
    same_top = {"Q6_K": ["1111", "1110"], "Q4_K_M": ["1011", "0011"]}
    rungs = [
        {"quantisation": name, "bits_per_weight": 6.6, "size_bytes": 1, "same_top_ratio": 0.5, "mean_kl": 0.1}
        for name in same_top
    ]
    shipped, other = gguf_q6k.ladder_table({f"merged_vs_{k}": {"same_top": v} for k, v in same_top.items()}, rungs)
    assert (shipped["better_than_shipped"], shipped["worse_than_shipped"], shipped["p_value"]) == (0, 0, 1.0)
    assert (other["better_than_shipped"], other["worse_than_shipped"]) == (1, 3)


def test_a_merge_that_changed_nothing_is_held(make_context, adapter, dataset, monkeypatch) -> None:
    from peft import PeftModel

    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self, safe_merge: self.unload(), raising=False)
    context = make_context()
    merged = merge_adapter(context, adapter, dataset)
    assert merged.manifest.metadata["adapted_changed_count"] == 0
    assert judge(context, merged, merged_model) == {"merge_equivalence": Verdict.FAIL}


def test_a_quantised_file_of_other_weights_is_held(
    make_context, exported, dataset, tiny_base, real_tokenizer, tmp_path, monkeypatch
) -> None:
    context = make_context()
    merged, _ = exported
    other = write_tiny(tmp_path / "other", real_tokenizer, seed=9)
    monkeypatch.setattr(
        export_stage,
        "convert_to_f16",
        lambda model_dir, target, metadata: convert.convert_to_f16(other, target, metadata=metadata),
    )
    fake = make_context(export={"equivalence_rows": 3})
    gguf = export_gguf(fake, merged, dataset, parity_prompts=PROMPTS)
    verdicts = judge(context, gguf, gguf_q6k)
    assert [name for name, verdict in verdicts.items() if verdict is not Verdict.PASS] == ["quant_equivalence"]


def test_a_template_with_one_byte_changed_is_held(exported, tmp_path: Path, make_context) -> None:
    merged, gguf = exported
    folder = tmp_path / "changed"
    shutil.copytree(merged.directory / "model", folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("# Tools", "# tools"))
    report = measure_parity(gguf_file(gguf), folder, PROMPTS)
    assert (report["template_equal"], report["bytes_differ_count"]) == (False, len(PROMPTS))
    gguf.path("template_parity.json").write_text(json.dumps(report))
    assert judge(make_context(), gguf, gguf_q6k)["template_parity"] is Verdict.FAIL


def test_an_earlier_export_that_was_touched_is_held_and_a_pruned_one_is_not(make_context, exported, dataset) -> None:
    context = make_context()
    merged, first = exported
    second = export_gguf(make_context(export={"equivalence_rows": 2}), merged, dataset, parity_prompts=PROMPTS)
    assert json.loads(second.path("earlier_artifacts.json").read_text())[0]["artifact_sha256"] == first.sha256
    assert judge(context, second, gguf_q6k)["earlier_untouched"] is Verdict.PASS
    path = gguf_file(first)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
    assert judge(context, second, gguf_q6k)["earlier_untouched"] is Verdict.FAIL
    shutil.rmtree(first.directory)
    assert judge(context, second, gguf_q6k)["earlier_untouched"] is Verdict.PASS


def test_a_corrupt_gguf_is_refused_by_every_reader(exported, tmp_path: Path, make_context, dataset) -> None:
    merged, gguf = exported
    whole = gguf_file(gguf).read_bytes()
    probes = probes_of(make_context(), dataset)
    for name, data in (("cut", whole[: len(whole) // 2]), ("no-head", b"GGUX" + whole[4:]), ("empty", b"")):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match=name):
            compare_forms(merged.directory / "model", {"x": path}, probes, tmp_path)
        with pytest.raises((ArtifactError, ExportError)):
            quantise(path, tmp_path / "out.gguf", "Q6_K")
        assert not (tmp_path / "out.gguf").exists()


def test_a_server_that_cannot_load_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF nothing")
    server = LlamaServer(path)
    with pytest.raises(ExportError, match="while loading"), server:
        pass
    assert server._process is None
    with pytest.raises(MissingInputError), LlamaServer(tmp_path / "none.gguf"):
        pass


def test_a_server_renders_and_ends(exported) -> None:
    _, gguf = exported
    with LlamaServer(gguf_file(gguf), context_tokens=256) as server:
        prompt = server.apply_template(PROMPTS[0]["messages"], PROMPTS[0]["tools"])
        assert prompt.endswith("<|im_start|>assistant\n")
        process = server._process
        with pytest.raises(ExportError, match="refused /apply-template"):
            server.apply_template("nonsense")  # type: ignore[arg-type]
    assert process is not None
    assert process.poll() is not None
    with pytest.raises(ExportError, match="not running"):
        server.apply_template(PROMPTS[0]["messages"])


def test_a_folder_the_converter_does_not_know_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["NoSuchModel"]}))
    with pytest.raises(ExportError, match="could not convert"):
        convert.convert_to_f16(tmp_path, tmp_path / "out.gguf", metadata={})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_missing_converter_says_how_to_get_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLCALL_PIPELINE_LLAMA_CPP", str(tmp_path))
    with pytest.raises(MissingInputError, match="make setup"):
        llama_cpp_source.converter_path()


def test_a_full_disk_is_refused_before_work_starts(make_context, adapter, dataset, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1000))
    context = make_context()
    with pytest.raises(TrainingError, match=r"0\.0 GB free.*Free some space"):
        merge_adapter(context, adapter, dataset)
    assert context.artifacts.current("merged_model", PARTITION) is None
    with pytest.raises(TrainingError, match="GB are needed"):
        require_disk(context.settings.home_dir, 10**6)


def test_a_disk_that_fills_up_half_way_leaves_no_artifact(make_context, adapter, dataset, monkeypatch) -> None:
    def full(path, content) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merge_module, "write_atomically", full)
    context = make_context()
    with pytest.raises(OSError, match="No space left"):
        merge_adapter(context, adapter, dataset)
    assert context.artifacts.current("merged_model", PARTITION) is None


def test_a_base_that_changed_since_training_is_refused(
    make_context, adapter, dataset, real_tokenizer, tmp_path
) -> None:
    other = write_tiny(tmp_path / "other", real_tokenizer, seed=3)
    with pytest.raises(TrainingError, match="trained on a base"):
        merge_adapter(make_context(base={"model": str(other)}), adapter, dataset)


def test_the_base_is_quantised_once_and_kept(make_context) -> None:
    context = make_context()
    path, digest = export_base_gguf(context)
    assert digest == sha256_file(path)
    changed = path.stat().st_mtime_ns
    assert export_base_gguf(context) == (path, digest)
    assert path.stat().st_mtime_ns == changed
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["SHA256SUMS", path.name]


def test_probes_compare_supervised_tokens_only(make_context, dataset) -> None:
    rows = pq.read_table(dataset.path("valid.encoded.parquet")).to_pylist()
    by_id = {row["row_id"]: row for row in rows}
    for probe in probes_of(make_context(), dataset):
        labels = by_id[probe.row_id]["labels"]
        assert all(labels[position + 1] != -100 for position in probe.positions)
        assert len(probe.input_ids) == probe.positions[-1] + 1


def test_a_file_whose_template_was_tried_on_a_few_prompts_does_not_pass_under_ship(make_context, exported) -> None:
    _, gguf = exported
    context = make_context(evaluation={"profile": "ship", "cases_per_suite": None})
    assert judge(context, gguf, gguf_q6k)["template_parity"] is Verdict.FAIL
