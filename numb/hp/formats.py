"""Configuration files: nested dictionaries in JSON, YAML and TOML, with the line of every value, and no key twice."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numb import atomic, config
from numb.errors import ConfigError, Usage
from numb.hp.tree import BUILD, IS_DICT, expand
from numb.hp.values import is_plain

FORMATS = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml"}


_TOO_LARGE: int = 10**config.MAX_DIGITS

# What YAML 1.1 reads into plain words and nobody means: 010 is ten, 1:30 is no 90, a date is text, and so are yes and on.
_NOT_MEANT = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("timestamp", "int", "float", "bool"))
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"[-+]?(0[xX][\da-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|\d[\d_]*)$")
_FLOAT = re.compile(
    r"[-+]?((\d[\d_]*)?\.\d[\d_]*|\d[\d_]*\.)([eE][-+]?\d+)?$|[-+]?\d[\d_]*[eE][-+]?\d+$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


def _plain(kind: Any) -> Any:
    """A loader or a dumper of YAML for which numbers are written as in Python, and 1e-3 is one."""

    class Plain(kind):  # type: ignore[misc]
        pass

    Plain.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_MEANT]
        for first, resolvers in kind.yaml_implicit_resolvers.items()
    }
    Plain.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    Plain.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    Plain.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("tTfF"))
    if hasattr(Plain, "add_constructor"):
        Plain.add_constructor("tag:yaml.org,2002:int", _int)
    return Plain


def _int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "").lower()
    digits = text.lstrip("+-")
    number = int(digits, 0) if digits[:2] in ("0x", "0o", "0b") else int(digits)
    return -number if text.startswith("-") else number


def format_of(path: Path, named: str | None = None) -> str:
    """The format of a file, by its name unless it is *named*. Raises `Usage` with those that there are."""
    found = named or FORMATS.get(path.suffix.lower(), "")
    if found not in FORMATS.values():
        known = ", ".join(FORMATS)
        raise Usage(f"{path}: Unsupported file extension: {path.suffix or 'none'}", f"one of {known}")
    return found


def load(path: Path, named: str | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """What a file says, and for each dotted name where it does: `base.yaml:3`.

    Raises `FileNotFoundError`, `Usage` for an unknown format, and `ConfigError` with file and line for what is no dictionary,
    not of that format, or has a key twice.
    """
    if path.is_dir():
        raise Usage(f"{path} is a folder", "name a file in it")
    kind = format_of(path, named)
    if kind == "json":
        return _json(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error.reason})", "save it as UTF-8") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return _yaml(path, text) if kind == "yaml" else _toml(path, text)


def save(
    path: Path, values: Mapping[str, Any], named: str | None = None, *, defaults: Mapping[str, Any] | None = None
) -> None:
    """Write flat values as a nested file that `load` reads again; *defaults* are as for `text_of`.

    Raises `Usage` for an unknown format, and `ConfigError` for a value that no such file can hold.
    """
    kind = format_of(path, named)
    for name, value in values.items():
        if not holds(kind, value):
            shown = repr(value) if is_plain(value) else f"a {type(value).__name__}"
            hint = "save it as .yaml" if holds("yaml", value) else None
            raise ConfigError(f"{name} is {shown}, which no {kind} file can hold", hint)
    atomic.write(path, text_of(values, kind, defaults))


def holds(kind: str, value: object) -> bool:
    """Whether a file of that format gives *value* back as it was, but for tuples, which become lists."""
    match value:
        case None:
            return kind != "toml"
        case str():
            return not any("\ud800" <= letter <= "\udfff" for letter in value)  # no text of bytes, in any encoding
        case int() if not isinstance(value, bool):
            return -_TOO_LARGE < value < _TOO_LARGE
        case list() | tuple():
            return all(holds(kind, item) for item in value)
        case dict():
            keys = all(isinstance(key, str) or kind == "yaml" for key in value)
            return keys and is_plain(value) and all(holds(kind, item) for item in (*value, *value.values()))
        case _:
            return is_plain(value)


def text_of(values: Mapping[str, Any], kind: str, defaults: Mapping[str, Any] | None = None) -> str:
    """Flat values as the text of a nested file.

    A dictionary is marked as a value where a file without the mark would be read into the one that is among the *defaults*, and
    would keep keys of it. Raises `ConfigError` for what the format cannot hold.
    """
    known = defaults or {}
    marked = {
        name: {**value, IS_DICT: True}
        if isinstance(value, Mapping) and _is_to_be_marked(value, known.get(name))
        else value
        for name, value in values.items()
    }
    nested = _listed(expand(marked))
    match kind:
        case "json":
            import json

            return json.dumps(nested, indent=2, ensure_ascii=False) + "\n"
        case "yaml":
            import yaml

            dumper = _plain(yaml.SafeDumper)
            text = str(yaml.dump(nested, Dumper=dumper, sort_keys=False, allow_unicode=True))
            if (
                yaml.load(text, _plain(yaml.SafeLoader)) != nested
            ):  # it writes line breaks of Unicode as they are, and reads them as spaces
                text = str(yaml.dump(nested, Dumper=dumper, sort_keys=False))
            return text
        case _:
            import tomli_w

            try:
                return tomli_w.dumps(nested)
            except TypeError as error:
                raise ConfigError(f"no TOML file can hold this: {error}", "save it as .json or .yaml") from None


def _is_to_be_marked(value: Mapping[Any, Any], default: Any) -> bool:
    return _merged(default, value) != value or not _is_like(default, value)


def _is_like(default: Any, value: Any) -> bool:
    """Whether what is in a dictionary is of the types that are in its default, which a file is read by."""
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        return all(_is_like(default[key], item) for key, item in value.items() if key in default)
    return default is None or type(default) is type(value)


def _merged(default: Any, value: Any) -> Any:
    """What a file makes of a default, whose keys it leaves where it has no others."""
    if not isinstance(default, Mapping) or not isinstance(value, Mapping) or not value or BUILD in value:
        return value
    if not all(isinstance(key, str) and key and "." not in key for key in value):
        return value
    kept = {key: item for key, item in default.items() if key not in value}
    return {**kept, **{key: _merged(default.get(key), item) for key, item in value.items()}}


def _listed(value: Any) -> Any:
    """Tuples as lists, which is what every format has."""
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


def _json(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    document = config.read_json(path, limit=1 << 26, non_finite=True)
    if not isinstance(document.value, dict):
        raise document.wrong('an object such as {"lr": 0.1}')
    places: dict[str, str] = {}

    def walk(here: config.Located, prefix: str) -> None:
        for key in here.value:
            inner = here[key]
            places[prefix + key] = ":".join(here.where_key(key).split(":")[:-1])
            if isinstance(inner.value, dict):
                walk(inner, f"{prefix}{key}.")

    walk(document, "")
    return document.value, places


def _yaml(path: Path, text: str) -> tuple[dict[str, Any], dict[str, str]]:
    import yaml

    places: dict[str, str] = {}
    try:
        loader = _plain(yaml.SafeLoader)(io.StringIO(text))
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path}:{node.start_mark.line + 1}: expected a mapping such as lr: 0.1")
        _places_of(node, path, "", places)
        found = loader.construct_document(node)
        if not isinstance(found, dict):
            raise ConfigError(f"{path}:{node.start_mark.line + 1}: expected a mapping such as lr: 0.1")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: {error.problem}") from None
    except RecursionError:
        raise ConfigError(f"{path}:1: nested too deeply, or an alias that contains itself") from None
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:  # of a tag that its value is not
        raise ConfigError(f"{path}:1: {error}") from None
    return found, places


def _places_of(node: Any, path: Path, prefix: str, places: dict[str, str]) -> None:
    import yaml

    seen: dict[tuple[str, str], int] = {}  # the number 1 and the text "1" are two keys
    for key, value in node.value:
        line, known = key.start_mark.line + 1, (key.tag, str(key.value))
        if known in seen and key.tag != "tag:yaml.org,2002:merge":
            raise ConfigError(f"{path}:{line}: the key {key.value} is there twice, first in line {seen[known]}")
        seen[known] = line
        places[f"{prefix}{key.value}"] = f"{path}:{line}"
        for inner in [value] if isinstance(value, yaml.MappingNode) else _mappings(value):
            _places_of(inner, path, f"{prefix}{key.value}.", places)


def _mappings(node: Any) -> list[Any]:
    """The mappings in a sequence, however deep."""
    import yaml

    if not isinstance(node, yaml.SequenceNode):
        return []
    inner = [item for item in node.value if isinstance(item, yaml.MappingNode)]
    return inner + [found for item in node.value for found in _mappings(item)]


def _toml(path: Path, text: str) -> tuple[dict[str, Any], dict[str, str]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column \d+\)", str(error))
        raise ConfigError(f"{path}:{at[1] if at else 1}: {error}") from None
    return found, {f"{name}": f"{path}:{line}" for name, line in _toml_lines(text)}


_TOML_TABLE = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]")
_TOML_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def _toml_lines(text: str) -> Iterator[tuple[str, int]]:
    """The dotted name of each key that begins a line, and that line."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if begins := _TOML_TABLE.match(line):
            table = _plain_key(begins[1])
        elif key := _TOML_KEY.match(line):
            yield f"{table}.{_plain_key(key[1])}" if table else _plain_key(key[1]), number


def _plain_key(key: str) -> str:
    return ".".join(part.strip("\"'") for part in re.findall(r"""[\w-]+|"[^"]*"|'[^']*'""", key))
