"""Types and documentation of the package: the stubs say what the native half has, and everything public is documented."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path

import fewbit
from fewbit import _fewbit


def test_the_stubs_name_what_the_native_half_has() -> None:
    tree = ast.parse((Path(fewbit.__file__).parent / "_fewbit.pyi").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    public = {name for name in dir(_fewbit) if not name.startswith("_")}
    assert public == classes.keys() | functions.keys()
    for name, node in functions.items():
        stub = [argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]]
        assert stub == list(inspect.signature(getattr(_fewbit, name)).parameters), name
    for name, node in classes.items():
        members = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
        own = {member for member in vars(getattr(_fewbit, name)) if not member.startswith("__")}
        assert members - {"__init__"} == own, name


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(fewbit.__file__).parent / "py.typed").exists()


def test_everything_public_is_documented() -> None:
    for name in fewbit.__all__:
        public = getattr(fewbit, name)
        assert public.__doc__, name
        if inspect.isclass(public):
            methods = [member for key, member in vars(public).items() if not key.startswith("_")]
            for method in methods:
                function = method.fget if isinstance(method, property) else getattr(method, "__func__", method)
                if callable(function):
                    assert function.__doc__, (name, function)
        if dataclasses.is_dataclass(public):
            # What dataclasses make up themselves is no documentation.
            assert not public.__doc__.startswith(f"{name}("), name


def test_the_versions_agree() -> None:
    assert fewbit.__version__ == _fewbit.version()
