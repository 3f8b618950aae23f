"""What a test needs, read off the sources: Keras, another process, a browser, a screen, or the shared data."""

import ast
import functools
import inspect
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
KERAS = {"keras", "tensorflow", "tf2onnx", "nncf"}
# Names that say so wherever they are used, and fixtures.
BY_NAME = {
    "subprocess": "process",
    "multiprocessing": "process",
    "NotebookClient": "process",
    "chromium": "browser",
    "ImageGrab": "window",
}
BY_FIXTURE = {"data": "data", "browser": "browser", "screen": "window"}
IGNORED = {"keras_is_marked"}  # it only looks


@functools.cache
def imported(file):
    """Return the modules that a file imports when it is imported itself, and the names that it takes from them."""
    found, todo = [], list(ast.parse(file.read_text("utf-8")).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.If):
            todo += node.orelse if "TYPE_CHECKING" in ast.unparse(node.test) else [*node.body, *node.orelse]
        elif isinstance(node, ast.Try | ast.With):
            todo += node.body
        elif isinstance(node, ast.Assign | ast.Expr) and "importorskip" in ast.unparse(node.value):
            found += [word.value for word in node.value.args]
    return found


def files_of(module):
    """Yield the files of this package, or of the tests, that importing a module runs."""
    parts = module.split(".")
    folder, parts = (ROOT, parts) if parts[0] == "imagesr" else (TESTS, parts[:1])
    for depth in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:depth])
        yield from (file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file())


def needs_keras(*modules):
    """Tell whether importing modules imports Keras or TensorFlow, by themselves or by others of this project."""
    seen, todo = set(), list(modules)
    while todo:
        module = todo.pop()
        if module.partition(".")[0] in KERAS:
            return True
        files = [file for file in files_of(module) if file not in seen]
        seen.update(files)
        todo += [name for file in files for name in imported(file)]
    return False


@functools.cache
def imports_keras(file):
    """Tell whether importing a file imports Keras or TensorFlow."""
    return needs_keras(*imported(file))


def codes(function):
    """Yield the code of a function and of those that it holds, or of a class's methods."""
    if inspect.isclass(function):
        for base in function.__mro__:
            yield from (code for member in vars(base).values() if of_tests(member) for code in codes(member))
        return
    todo = [inspect.unwrap(function).__code__]
    while todo:
        code = todo.pop()
        yield code
        todo += [const for const in code.co_consts if inspect.iscode(const)]


def of_tests(value):
    """Tell whether a value is a function or a class of the tests' own."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return False
    module = inspect.getmodule(value)
    return TESTS in Path(getattr(module, "__file__", None) or "/").parents


def names_used(*functions):
    """Return the names that functions use, and those of all functions and classes of the tests that they call."""
    found, seen, todo = set(), set(), list(functions)
    while todo:
        function = todo.pop()
        if function in seen or function.__name__ in IGNORED:
            continue
        seen.add(function)
        own = {name for code in codes(function) for name in code.co_names}
        found |= {const for code in codes(function) for const in code.co_consts if const == "keras"}  # an engine's name
        known = vars(inspect.getmodule(function))
        todo += [known[name] for name in own if of_tests(known.get(name))]
        found |= own
    return found


def needs(functions, fixtures=(), file=None, parameters=()):
    """Return the marks of a test: of its functions, with those of its fixtures, its file and its parameters."""
    names = names_used(*functions) | ({"keras"} if "'keras'" in repr(parameters) else set())
    marks = {mark for name, mark in BY_NAME.items() if name in names}
    marks |= {mark for name, mark in BY_FIXTURE.items() if name in fixtures}
    if (file and imports_keras(file)) or needs_keras(*(name for name in names if "." in name or name in KERAS)):
        marks.add("keras")
    return marks
