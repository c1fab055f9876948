"""YAML files that users edit (journey.yml, mappings): one reader, and where each key stands, for error messages."""

from __future__ import annotations

from typing import Any

import yaml

from schemas.errors import ConfigurationError


class Lines:
    """Where each key of a YAML document stands, for error messages."""

    def __init__(self, source: str, tree: yaml.Node | None) -> None:
        self.source, self.tree = source, tree

    def at(self, *path: str | int) -> str:
        """`file:line` of the deepest part of `path` that is in the document."""
        node, line = self.tree, None
        for part in path:
            found = self._child(node, part)
            if found is None:
                break
            node = found
            line = node.start_mark.line + 1
        return f"{self.source}:{line}" if line else self.source

    @staticmethod
    def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child: yaml.Node = node.value[part]
            return child
        if isinstance(node, yaml.MappingNode):
            return next((value for key, value in node.value if key.value == str(part)), None)
        return None


def read_yaml(text: str, *, source: str) -> tuple[Any, Lines]:
    """The document and its lines. Raises ConfigurationError for what is no YAML, and for a key that stands twice."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigurationError(f"not valid YAML: {problem}", where=where, remedy="Correct the line") from None
    except RecursionError:
        raise ConfigurationError("nested too deeply", where=source, remedy="Flatten the file") from None
    except (ValueError, LookupError, AttributeError) as error:  # a date that is no day, a tag that does not fit
        raise ConfigurationError(f"not a value: {error}", where=source, remedy="Correct the value") from None
    _refuse_repeated_keys(tree, source)
    return document, Lines(source, tree)


def _refuse_repeated_keys(tree: yaml.Node | None, source: str) -> None:
    """PyYAML lets the last one win in silence, so that half of what a file says would not count."""
    seen: set[int] = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if id(node) in seen:  # an alias leads to a node again
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += reversed(node.value)
        elif isinstance(node, yaml.MappingNode):
            first: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                name, line = (key.tag, str(key.value)), key.start_mark.line + 1
                if name in first:
                    raise ConfigurationError(
                        f"the key stands twice, first on line {first[name]}",
                        where=f"{source}:{line}",
                        value=str(key.value),
                        remedy="Keep one of the two",
                    )
                first[name] = line
            nodes += [value for _, value in reversed(node.value)]
