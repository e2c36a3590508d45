"""The optimisers that a schedule may name. Separate because this is the one file that knows torch.optim.

Parameters go by name; the state of an optimiser is tensors by name, so that a checkpoint holds it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.spec import Rates, Schedule

# What each keeps of a parameter: torch's word -> what its tensor's name begins with in a checkpoint.
_STATE: Mapping[str, Mapping[str, str]] = {
    "sgd": {"momentum_buffer": "momentum/"},
    "adamw": {"exp_avg": "exp_avg/", "exp_avg_sq": "exp_avg_sq/", "step": "step/"},
}


class Optimiser:
    """One stage's optimiser.

    Args:
        named: the parameters by name, in the order in which their gradients are summed.
        schedule: names the optimiser, its settings, and what differs for a parameter group.
        group_of: the group of a parameter's name.
    """

    def __init__(
        self, named: Mapping[str, nn.Parameter], schedule: Schedule, group_of: Callable[[str], str] = lambda name: ""
    ) -> None:
        self.named, self._words = dict(named), _STATE[schedule.optimiser]
        parts: dict[Rates, list[nn.Parameter]] = {}
        for name, parameter in named.items():
            parts.setdefault(schedule.groups.get(group_of(name), Rates()), []).append(parameter)
        self._factors = [own.lr for own in parts]
        groups = [
            {
                "params": parameters, "lr": schedule.lr * own.lr,
                "weight_decay": schedule.weight_decay if own.weight_decay is None else own.weight_decay,
            }
            for own, parameters in parts.items()
        ]  # fmt: skip
        self._torch = _made(groups, schedule)

    def set_rate(self, lr: float) -> None:
        """The schedule's rate for the next step, times each group's factor."""
        for group, factor in zip(self._torch.param_groups, self._factors, strict=True):
            group["lr"] = lr * factor

    def zero_grad(self) -> None:
        """No parameter has a gradient."""
        self._torch.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move the parameters that have a gradient."""
        self._torch.step()

    def state(self) -> dict[str, Tensor]:
        """Its tensors by name, "momentum/NAME" or "exp_avg/NAME" and so on; nothing of a parameter that never moved."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.named.items():
            own = self._torch.state.get(parameter, {})
            found |= {f"{prefix}{name}": own[word] for word, prefix in self._words.items() if own.get(word) is not None}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; other names are left alone."""
        for name, parameter in self.named.items():
            own = {word: tensors[prefix + name] for word, prefix in self._words.items() if prefix + name in tensors}
            for word, tensor in own.items():
                # In the parameter's own memory format, as the undisturbed run has it; the count of steps is on the CPU.
                kept = tensor.clone() if word == "step" else torch.empty_like(parameter).copy_(tensor).detach()
                self._torch.state[parameter][word] = kept

    def make_state(self, names: Iterable[str]) -> None:
        """Room for these tensors, as `state` names them, before another process's are copied into them."""
        known = self.state()
        for full in names:
            word, prefix = next((w, p) for w, p in self._words.items() if full.startswith(p))
            if full not in known:
                parameter = self.named[full.removeprefix(prefix)]
                self._torch.state[parameter][word] = torch.zeros(()) if word == "step" else torch.zeros_like(parameter)


def _made(groups: list[dict[str, Any]], schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=schedule.lr, betas=schedule.betas)
    return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum, nesterov=schedule.nesterov)
