"""Checkpoints: exact round trips, the newest sound one, equal bytes for equal weights."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import UserError
from bench.run.checkpoint import flatten, newest, read_tensors, save, unflatten, write_tensors

ROOT = Path(__file__).resolve().parents[1]


def same(a: Tensor, b: Tensor) -> bool:
    """Equal dtype, shape and bits."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.numel() == 0 or torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def some_state() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(3)
    return {
        "w": torch.randn(4, 5, generator=g),
        "half": torch.randn(3, generator=g).to(torch.bfloat16),
        "double": torch.tensor([math.nan, math.inf, -0.0, 5e-324], dtype=torch.float64),
        "count": torch.tensor(7, dtype=torch.int64),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "also_empty": torch.zeros(0),
    }


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    meta = {"loss": math.nan, "name": "größe", "nested": [1, {"a": None}]}
    path = save(tmp_path, 12, some_state(), meta)
    assert path.name == "checkpoint-12.safetensors"
    found = newest([tmp_path])
    assert found is not None
    step, state, back = found
    assert step == 12
    assert state.keys() == some_state().keys()
    assert all(same(state[name], value) for name, value in some_state().items())
    assert math.isnan(back.pop("loss"))
    assert back == {"name": "größe", "nested": [1, {"a": None}]}


def test_tied_weights_views_and_transposes(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "tied": base, "view": base[1:], "turned": base.t(), "grad": nn.Parameter(base)}
    write_tensors(tmp_path / "w.safetensors", state)
    back = read_tensors(tmp_path / "w.safetensors")
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_the_last_two_are_kept_and_the_highest_step_of_all_attempts_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for step in (10, 20, 30):
        save(first, step, {"x": torch.tensor(step)}, {})
    assert sorted(p.name for p in first.glob("*.safetensors")) == [
        "checkpoint-20.safetensors",
        "checkpoint-30.safetensors",
    ]
    assert len(list(first.iterdir())) == 4
    save(second, 9, {"x": torch.tensor(9)}, {})
    found = newest([first, second, tmp_path / "absent"])
    assert found is not None
    assert (found[0], int(found[1]["x"])) == (30, 30)
    save(second, 100, {"x": torch.tensor(100)}, {})
    found = newest([first, second])
    assert found is not None
    assert found[0] == 100, "steps are compared as numbers"


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "no checksum", "checksum cut"])
def test_a_broken_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1, {"x": torch.ones(100)}, {})
    path = save(tmp_path, 2, {"x": torch.ones(100) * 2}, {})
    checksum = path.with_name(path.name + ".sha256")
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-10])
    elif damage == "flip":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "no checksum":
        checksum.unlink()
    else:
        checksum.write_text(checksum.read_text()[:9])
    warnings: list[str] = []
    found = newest([tmp_path], warnings.append)
    assert found is not None
    assert (found[0], float(found[1]["x"][0])) == (1, 1.0)
    assert len(warnings) == 1
    assert str(path) in warnings[0]


def test_none_when_nothing_is_sound(tmp_path: Path) -> None:
    assert newest([tmp_path]) is None
    save(tmp_path, 1, {"x": torch.ones(1)}, {}).write_bytes(b"x")
    assert newest([tmp_path]) is None


def test_broken_ones_do_not_push_out_the_sound_one(tmp_path: Path) -> None:
    save(tmp_path, 1, {"x": torch.ones(1)}, {})
    for step in (2, 3):  # killed between data and checksum
        save(tmp_path, step, {"x": torch.ones(1)}, {}).with_name(f"checkpoint-{step}.safetensors.sha256").unlink()
    save(tmp_path, 4, {"x": torch.ones(1)}, {}).write_bytes(b"x")
    found = newest([tmp_path])
    assert found is not None
    assert found[0] == 1


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_continues_bit_for_bit(tmp_path: Path, momentum: float) -> None:
    def start() -> tuple[nn.Linear, torch.optim.SGD]:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        groups = [{"params": [model.weight], "weight_decay": 1e-4}, {"params": [model.bias], "lr": 0.01}]
        return model, torch.optim.SGD(groups, lr=0.06, momentum=momentum, nesterov=momentum > 0)

    def steps(model: nn.Linear, optimiser: torch.optim.SGD, first: int, last: int) -> None:
        for step in range(first, last):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            optimiser.zero_grad()
            model(x).square().sum().backward()
            optimiser.step()

    model, optimiser = start()
    steps(model, optimiser, 0, 6)

    half, half_optimiser = start()
    steps(half, half_optimiser, 0, 3)
    tensors, skeleton = flatten(half_optimiser.state_dict(), "optimiser")
    save(tmp_path, 3, {**half.state_dict(), **tensors}, {"optimiser": skeleton})
    found = newest([tmp_path])
    assert found is not None
    step, state, meta = found
    resumed, resumed_optimiser = start()
    restored = unflatten(state, meta["optimiser"])
    assert restored["param_groups"] == half_optimiser.state_dict()["param_groups"]
    resumed_optimiser.load_state_dict(restored)
    resumed.load_state_dict({name: state[name] for name in resumed.state_dict()})
    steps(resumed, resumed_optimiser, step, 6)
    assert all(same(a, b) for a, b in zip(resumed.parameters(), model.parameters(), strict=True))


def test_flatten_keeps_types() -> None:
    tree = {
        "state": {0: {"m": torch.ones(2, dtype=torch.bfloat16), "n": None}, 1: {}},
        "g": [{"b": (0.9, 1e-300), "t": True}],
    }
    tensors, skeleton = flatten(tree, "o")
    assert list(tensors) == ["o.state.0.m"]
    back = unflatten(tensors, skeleton)
    assert back["state"][0].pop("m").dtype == torch.bfloat16
    tree["state"][0].pop("m")  # type: ignore[index]
    assert back == tree
    assert isinstance(back["g"][0]["b"], tuple)
    with pytest.raises(TypeError, match=r"o\.f"):
        flatten({"f": object()}, "o")


def test_equal_weights_are_equal_bytes_in_any_process_and_order(tmp_path: Path) -> None:
    state = some_state()
    write_tensors(tmp_path / "a", state)
    write_tensors(tmp_path / "b", dict(reversed(state.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    code = (
        "import sys; from pathlib import Path; from bench.run.checkpoint import read_tensors, write_tensors\n"
        "write_tensors(Path(sys.argv[2]), read_tensors(Path(sys.argv[1])))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a"), str(tmp_path / "c")], cwd=ROOT, check=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()
    assert load_file(tmp_path / "a").keys() == state.keys()


def test_checkpoint_bytes_are_reproducible(tmp_path: Path) -> None:
    one = save(tmp_path / "1", 5, some_state(), {"b": 1, "a": 2, "c": 3}).read_bytes()
    two = save(tmp_path / "2", 5, some_state(), {"c": 3, "a": 2, "b": 1}).read_bytes()
    assert one == two


def test_read_tensors_refuses_in_words(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match="no such weight file"):
        read_tensors(path)
    write_tensors(path, {"x": torch.ones(50)})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_tensors(path, digest)["x"].shape == (50,)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"\x07")
    with pytest.raises(UserError, match="sha256"):
        read_tensors(path, digest)
    for broken in (data[:-4], data[:5], b"", b"PK\x03\x04 a pickle" * 20):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="not a whole safetensors file"):
            read_tensors(path)
