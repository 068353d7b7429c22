"""All modules of a model, and all their parameters, from one quick look.

What is put on a model, and what its modules say, is looked at many times in every sweep. Torch's
``named_modules`` takes twice as long, as it goes through a generator for every level, and
``parameters`` does so for each tensor. Modules are told apart by identity: a user's may be equal.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def named_modules(top: nn.Module) -> list[tuple[str, nn.Module]]:
    """A module and all inside it, each once, by their paths, in torch's order.

    >>> named_modules(nn.Sequential(nn.ReLU(), nn.Tanh()))[1:]
    [('0', ReLU()), ('1', Tanh())]
    """
    found, seen = [("", top)], {id(top)}

    def into(before: str, module: nn.Module) -> None:
        for name, part in module._modules.items():
            if part is not None and id(part) not in seen:
                seen.add(id(part))
                found.append((before + name, part))
                if part._modules:
                    into(f"{before}{name}.", part)

    into("", top)
    return found


def modules(top: nn.Module) -> list[nn.Module]:
    """The same without paths."""
    found, seen = [top], {id(top)}

    def into(module: nn.Module) -> None:
        for part in module._modules.values():
            if part is not None and id(part) not in seen:
                seen.add(id(part))
                found.append(part)
                if part._modules:
                    into(part)

    into(top)
    return found


def parameters(top: nn.Module) -> Iterator[nn.Parameter]:
    """Their parameters, in torch's order; one that several have comes as often."""
    for module in modules(top):
        for own in module._parameters.values():
            if own is not None:
                yield own


def module_at(top: nn.Module, path: str) -> nn.Module:
    """The module of a path, as ``get_submodule`` gives it, which asks for each name twice.

    Raises:
        AttributeError: there is none.

    >>> module_at(nn.Sequential(nn.ReLU(), nn.Tanh()), "1")
    Tanh()
    """
    found = top
    for name in path.split("."):
        part = found._modules.get(name)
        if part is None:  # the module itself, a name that its class answers to, or none
            return top.get_submodule(path)
        found = part
    return found
