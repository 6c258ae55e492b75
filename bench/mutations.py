"""Small mistakes that somebody could make, as values: one place of one file says something else. Python and shell.

Pure: a file's text in, its mutations out. Python is changed at nodes of its syntax tree, shell by the line, by a table
of what is taken for what. A mutation that means the same to the compiler, or that bash cannot read, is none. Strings,
docstrings, annotations and comments stay: texts for people are tested by reading them.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """In the file `path` (from the repository's root) the bytes from `begin` to `end` are `new`."""

    path: str
    line: int
    begin: int
    end: int
    new: str
    source: bytes

    @property
    def mutated(self) -> bytes:
        """The whole file with it."""
        return self.source[: self.begin] + self.new.encode() + self.source[self.end :]

    @property
    def lines(self) -> tuple[str, str]:
        """The line it begins in, before and after, without its margin."""
        start = self.source.rfind(b"\n", 0, self.begin) + 1
        stop = self.source.find(b"\n", self.end)
        before = self.source[start : stop if stop >= 0 else None].decode()
        after = (self.source[start : self.begin] + self.new.encode() + self.source[self.end : stop]).decode()
        return " ".join(before.split()), " ".join(after.split())

    def __str__(self) -> str:
        before, after = self.lines
        return f"{self.path}:{self.line}: {before}  ->  {after}"


def mutations(path: str, source: bytes) -> list[Mutation]:
    """Every mutation of a Python or shell file, in the order of its text; some are none, as `is_one` says."""
    found = _of_python(path, source) if path.endswith(".py") else _of_shell(path, source)
    return sorted(found, key=lambda each: (each.begin, each.end, each.new))


COMPARISONS = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*", ast.Mod: "+", ast.BitAnd: "|"}
DELETED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete)


def _of_python(path: str, source: bytes) -> Iterator[Mutation]:
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def change(node: ast.AST, new: str) -> Mutation:
        begin = starts[node.lineno - 1] + node.col_offset
        return Mutation(path, node.lineno, begin, starts[node.end_lineno - 1] + node.end_col_offset, new, source)

    def between(left: ast.AST, right: ast.AST, old: str, new: str) -> Mutation | None:
        """`old`, an operator between two nodes, is `new`."""
        begin = starts[left.end_lineno - 1] + left.end_col_offset
        end = starts[right.lineno - 1] + right.col_offset
        place = re.search(rb"(?<![\w<>=!])" + re.escape(old.encode()) + rb"(?![\w<>=!])", source[begin:end])
        if place is None:
            return None
        return Mutation(path, left.end_lineno, begin + place.start(), begin + place.end(), new, source)

    for node in _changeable(tree):
        yield from (found for found in _changes(node, change, between) if found is not None)


def _changeable(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those of annotations, docstrings and imports."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "bases", "type_params"):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            children = value if isinstance(value, list) else [value]
            todo += [child for child in children if isinstance(child, ast.AST)]


OPERATORS = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.In: "in",
    ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not", ast.Add: "+", ast.Sub: "-", ast.Mult: "*",
    ast.FloorDiv: "//", ast.Mod: "%", ast.BitAnd: "&",
}  # fmt: skip


def _changes(node, change, between) -> Iterator[Mutation | None]:  # noqa: C901, PLR0912 - a table of kinds
    if isinstance(node, ast.Compare):
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators):
            yield between(left, right, OPERATORS[type(operator)], COMPARISONS[type(operator)])
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_text(node.left):
        yield between(node.left, node.right, OPERATORS[type(node.op)], ARITHMETIC[type(node.op)])
    elif isinstance(node, ast.BoolOp):
        words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            yield between(left, right, *words)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield change(node, f"bool({ast.unparse(node.operand)})")
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield change(node.test, f"(not ({ast.unparse(node.test)}))")
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield change(node, str(not node.value))
        elif isinstance(node.value, (int, float)):
            yield change(node, another(node.value))
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield change(node.value, "None")
    elif isinstance(node, DELETED) and node.col_offset and not _is_docstring(node):  # inside of something
        yield change(node, "pass")
    elif isinstance(node, ast.ExceptHandler) and node.type is not None:
        yield change(node.type, "ZeroDivisionError")


def another(number: float) -> str:
    """Another number than that: what was none is one, what was one is none, and a bound is more than twice as far."""
    return str(1 - number if number in (0, 1) else number * 2 + 1)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, (ast.JoinedStr, ast.List, ast.Tuple)) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    )


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


# What one reads in a line of shell, and what could stand there by mistake. In words, not in strings.
SHELL = (
    (r"&&", "||"), (r"\|\|", "&&"),
    (r"(?<=\s)==(?=\s)", "!="), (r"(?<=\s)!=(?=\s)", "=="),
    (r"(?<=\[\[ )! ", ""), (r"(?<=\[\[ )(?!! )", "! "), (r"(?<=\[ )(?=-)", "! "),
    (r"(?<=if )! (?!\[\[)", ""), (r"(?<=if )(?![![({]|\[\[)", "! "),
    (r"(?<=\s)-z(?=\s)", "-n"), (r"(?<=\s)-n(?= [\"$])", "-z"),
    (r"(?<=\s)<(?=\s)", "<="), (r"(?<=\s)<=(?=\s)", "<"), (r"(?<=\s)>=(?=\s)", ">"), (r"(?<=[\w)] )>(?= [\w(])", "<="),
    (r"(?<=[\w)}] )\+(?= [\w($])", "-"), (r"(?<=[\w)}] )-(?= [\w($])", "+"), (r"(?<=[\w)}] )\*(?= [\w($])", "+"),
    (r"\breturn 0\b", "return 1"), (r"\breturn 1\b", "return 0"), (r"\breturn (?=0|1)", ": "),
    (r"\bexit 0\b", "exit 1"), (r"\bbreak\b", ":"), (r"\bcontinue\b", ":"),
    (r"(?<![\w$.:/{'\"&-])(?<!return )(?<!exit )[0-9]+(?![\w.:/}'\"<>])", None),
)  # fmt: skip
# A line that is a command of its own: neither the head nor the end of a construct, nor part of a longer one.
_COMMAND = re.compile(r"\s+(?!(if|then|else|elif|fi|for|while|until|do|done|case|esac|local|\}|\{|\)|#)\b|[})#{])\S.*$")
_OPEN = re.compile(r"(\\|&&|\|\||\||\(|\{|;;|then|do|else|in)$|\bthen\b|\bdo\b|<<")


def _of_shell(path: str, source: bytes) -> Iterator[Mutation]:
    offset, before = 0, ""
    for number, raw in enumerate(source.splitlines(keepends=True), 1):
        line = raw.decode()
        text = line.rstrip("\n")
        if text.strip() and not text.lstrip().startswith(("#", "{")) and "{%" not in text:
            for begin, end, new in _line_changes(text, before):
                first = offset + len(text[:begin].encode())
                yield Mutation(path, number, first, first + len(text[begin:end].encode()), new, source)
        before = text
        offset += len(raw)


def _line_changes(text: str, before: str) -> Iterator[tuple[int, int, str]]:
    quiet = _without_comment(text)
    for pattern, new in SHELL:
        for place in re.finditer(pattern, quiet):
            yield place.start(), place.end(), another(int(place.group())) if new is None else new
    if _COMMAND.match(quiet) and not _OPEN.search(quiet.rstrip()) and not before.rstrip().endswith(("\\", "&&", "||")):
        yield len(text) - len(text.lstrip()), len(text), ":"


def _without_comment(text: str) -> str:
    """The line with blanks in the place of its comment and of what stands in single quotes."""
    text = re.sub(r"(?<=\s)#.*$", lambda match: " " * len(match.group()), text)
    return re.sub(r"'[^']*'", lambda match: "'" + " " * (len(match.group()) - 2) + "'", text)


def is_one(mutation: Mutation) -> bool:
    """True if its language can read it, and it is not the same to it as what was there."""
    if mutation.path.endswith(".py"):
        try:
            return ast.dump(ast.parse(mutation.mutated)) != ast.dump(ast.parse(mutation.source))
        except SyntaxError:
            return False
    if mutation.path.endswith(".j2"):  # which the renderer reads
        return True
    return subprocess.run(["bash", "-n"], input=mutation.mutated, capture_output=True, check=False).returncode == 0
