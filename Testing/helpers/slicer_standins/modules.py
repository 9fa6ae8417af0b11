"""What ``slicer`` has only in the application, and a scripted module needs to be loaded: base classes, translation,
the parameter node wrapper. As small as it can be."""

from __future__ import annotations

import sys
import typing
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

import slicer


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__

    def resourcePath(self, name: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / name)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.layout = parent.layout()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False

    def resourcePath(self, name: str) -> str:
        folder = Path(sys.modules[type(self).__module__].__file__ or "").parent
        return str(folder / "Resources" / name)

    def setup(self) -> None:
        pass

    def cleanup(self) -> None:
        pass


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node.SetName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments or ("runTest",))

    def runTest(self) -> None:
        pass

    def delayDisplay(self, message: str, *arguments: Any) -> None:
        pass


def parameterNodeWrapper(kind: type) -> type:
    """A class's annotated attributes (text, numbers, truth, nodes), kept in a ``vtkMRMLScriptedModuleNode``."""
    defaults = {name: getattr(kind, name, None) for name in typing.get_type_hints(kind)}
    for name, wanted in typing.get_type_hints(kind).items():
        setattr(kind, name, _parameter(name, wanted, defaults[name]))

    def initialize(self: Any, node: Any) -> None:
        self.parameterNode = node

    kind.__init__ = initialize  # type: ignore[misc]
    return kind


def _parameter(name: str, kind: Any, default: Any) -> property:
    kinds = [k for k in typing.get_args(kind) if k is not type(None)] or [kind]
    plain = kinds[0]

    def get(self: Any) -> Any:
        node = self.parameterNode
        if isinstance(plain, type) and issubclass(plain, slicer.vtkMRMLNode):
            return node.GetNodeReference(name)
        text = node.GetParameter(name)
        if not text and name not in (node.GetParameterNames() or ()):
            return default if default is not None else plain()
        return text == "true" if plain is bool else plain(text)

    def put(self: Any, value: Any) -> None:
        node = self.parameterNode
        if isinstance(plain, type) and issubclass(plain, slicer.vtkMRMLNode):
            node.SetNodeReferenceID(name, value.GetID() if value is not None else None)
        elif not isinstance(value, plain):
            raise TypeError(f"{name} is {plain}, not {value!r}")  # as the application's own does
        else:
            node.SetParameter(name, str(value).lower() if plain is bool else str(value))

    return property(get, put)


def make_modules() -> dict[str, ModuleType]:
    i18n = ModuleType("slicer.i18n")
    i18n.tr = lambda text: text  # type: ignore[attr-defined]
    i18n.translate = lambda context, text: text  # type: ignore[attr-defined]
    bases = ModuleType("slicer.ScriptedLoadableModule")
    for base in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(bases, base.__name__, base)
    wrapper = ModuleType("slicer.parameterNodeWrapper")
    wrapper.parameterNodeWrapper = parameterNodeWrapper  # type: ignore[attr-defined]
    return {module.__name__: module for module in (i18n, bases, wrapper)}
