"""From plain YAML to objects: a node with `_target_` is a call, and the target's signature is its schema.

    check(cfg)   every mistake of a configuration at once, with its dotted path, before anything heavy is touched
    build(node)  the object; a node with `_partial_: true` becomes the function still waiting for its run-time objects

Only what the trusted packages themselves define can be named: a target re-exported from elsewhere, or reached through
another module's attribute, is refused. The same two functions read the description inside a model file, where only
this package is trusted.
"""

import functools
import importlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from omegaconf import DictConfig, ListConfig, OmegaConf

TRUSTED = ("diffusion",)
PLAIN = (bool, int, float, str, list, tuple, dict)


class ConfigError(ValueError):
    """A configuration that cannot be built; the message lists every mistake."""


def plain(node):
    """OmegaConf nodes as dicts and lists, interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig | ListConfig) else node


def locate(target: str, trusted: Iterable[str] = TRUSTED) -> Callable:
    """The class or function called `package.module.Name`. Raises ConfigError where it is unknown or not trusted."""
    module_name, _, name = target.rpartition(".")
    packages = tuple(trusted)
    if not any(module_name == p or module_name.startswith(p + ".") for p in packages):
        raise ConfigError(f"{target} is not in a trusted package ({', '.join(packages)})")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{target}: no module named {error.name}") from None
    except AttributeError:
        module = importlib.import_module(module_name)
        hint = get_close_matches(name, dir(module), 1)
        raise ConfigError(f"{target}: {module_name} has no {name}" + (f"; {hint[0]}?" if hint else "")) from None
    home = getattr(found, "__module__", "")
    if not callable(found) or not any(home == p or home.startswith(p + ".") for p in packages):
        raise ConfigError(f"{target} is not a class or function of a trusted package ({', '.join(packages)})")
    return found


def check(cfg, trusted: Iterable[str] = TRUSTED) -> None:
    """Raises ConfigError with every unknown or missing argument and every wrong plain type in the configuration."""
    pointers = tuple(path + end for path in _pointers(cfg, "") for end in ".:")
    found = [line for line in _mistakes(plain(cfg), "", tuple(trusted)) if not line.startswith(pointers)]
    if found:
        raise ConfigError("the configuration has " + ("a mistake" if len(found) == 1 else f"{len(found)} mistakes")
                          + "".join(f"\n  {line}" for line in found))


def build(node, trusted: Iterable[str] = TRUSTED, **objects):
    """The object that a node describes, its parts first. `objects` are run-time arguments of the outermost call."""
    node, trusted = plain(node), tuple(trusted)
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [build(item, trusted) for item in node]
    if not isinstance(node, Mapping):
        return node
    if "_target_" not in node:
        return {key: build(value, trusted) for key, value in node.items()}
    arguments = {key: build(value, trusted) for key, value in node.items() if key not in ("_target_", "_partial_")}
    call = functools.partial(locate(node["_target_"], trusted), **arguments)
    return call if node.get("_partial_") and not objects else call(**objects)


def canonical(node, trusted: Iterable[str] = TRUSTED):
    """The node without the arguments that equal the target's default, 1.0 as 1: what identifies a run. A new optional
    argument changes nobody's identity."""
    node = plain(node)
    if isinstance(node, Mapping):
        defaults = {}
        if "_target_" in node:
            signature = inspect.signature(locate(node["_target_"], trusted))
            defaults = {name: p.default for name, p in signature.parameters.items() if p.default is not p.empty}
        return {key: canonical(value, trusted) for key, value in sorted(node.items())
                if not (key in defaults and _same(value, defaults[key]))}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [canonical(item, trusted) for item in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node


def _same(value, default) -> bool:
    if isinstance(value, list) and isinstance(default, tuple):
        return tuple(value) == default
    return (type(value) is type(default) and value == default) or (
        {type(value), type(default)} == {int, float} and value == default)


def _pointers(node, path: str) -> Iterator[str]:
    """The paths of nodes that are others by interpolation: those are checked where they stand."""
    for key in node if isinstance(node, DictConfig) else ():
        here = f"{path}.{key}" if path else str(key)
        if OmegaConf.is_interpolation(node, key):
            yield here
        elif not OmegaConf.is_missing(node, key):
            yield from _pointers(node[key], here)


def _mistakes(node, path: str, trusted: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _mistakes(value, f"{path}.{key}" if path else str(key), trusted)
        if "_target_" in node:
            yield from _call_mistakes(node, path, trusted)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for i, item in enumerate(node):
            yield from _mistakes(item, f"{path}[{i}]", trusted)


def _call_mistakes(node: Mapping, path: str, trusted: tuple[str, ...]) -> Iterator[str]:
    try:
        target = locate(node["_target_"], trusted)
    except ConfigError as error:
        yield f"{path}: {error}"
        return
    parameters = inspect.signature(target).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for key, value in node.items():
        if key in ("_target_", "_partial_"):
            continue
        if key not in named:
            if not open_ended:
                hint = get_close_matches(key, named, 1)
                yield (f"{path}.{key}: unknown argument of {target.__name__}" + (f"; {hint[0]}?" if hint else "")
                       + f" (allowed: {', '.join(named)})")
        elif not _fits(value, named[key].annotation):
            yield f"{path}.{key} = {value!r}: {target.__name__} takes {_show(named[key].annotation)}"
    if not node.get("_partial_"):
        for name, parameter in named.items():
            if parameter.default is parameter.empty and name not in node:
                yield f"{path}.{name}: missing ({target.__name__} needs it)"


def _fits(value, annotation) -> bool:
    """Whether a plain value can be what a plain annotation asks for; anything else is left to Python."""
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, a) for a in arguments)
    if annotation in (None, type(None)):
        return value is None
    if origin is typing.Literal:
        return value in arguments
    if origin in (list, tuple, Sequence):
        items = [a for a in arguments if a is not ...]
        return isinstance(value, list | tuple) and all(_fits(v, items[0]) for v in value if len(set(items)) == 1)
    if origin is dict:
        return isinstance(value, dict)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (list, tuple):
        return isinstance(value, list | tuple)
    if annotation in PLAIN:
        return isinstance(value, annotation)
    return True


def _show(annotation) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def miscounted(numbers: Mapping[str, object]) -> list[str]:
    """What is wrong with numbers that count something, a line each."""
    return [f"{name} = {value}: a whole number, at least 1" for name, value in numbers.items()
            if not isinstance(value, int) or isinstance(value, bool) or value < 1]


def trained_here(node, trusted: Iterable[str] = TRUSTED) -> bool:
    """Whether a node's class is one that this program trains: not where there is none, or it comes with its weights."""
    return bool(node) and getattr(locate(node["_target_"], trusted), "trainable", True)


def as_override(value) -> str:
    """A plain value as the command line takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(as_override, value))}]"
    return str(value) if isinstance(value, float) else json.dumps(value)  # JSON has no inf, Hydra has


def key_in(override: str) -> str:
    """What an override of the command line sets: guidance.scale of +guidance.scale=5."""
    return override.partition("=")[0].lstrip("+~")


def name_of(function: Callable) -> str:
    """The function's name, with what was changed of it: ddim(eta=0.5)."""
    inner = getattr(function, "func", function)
    given = ", ".join(f"{k}={v}" for k, v in getattr(function, "keywords", {}).items())
    return f"{inner.__name__}({given})" if given else inner.__name__
