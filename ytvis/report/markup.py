"""HTML built as a tree, so that whatever a file calls its videos and categories stays text."""

import base64
import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from importlib.resources import files
from xml.etree.ElementTree import Element

Child = Element | str | int | float | None | Iterable


def node(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Element:
    """An element. Children are elements, text, or lists of these; None adds nothing.

    In the names of attributes `_` stands for `-`, at the end for nothing (`class_`); None and False leave one out.
    """
    element = ElementTree.Element(tag)
    for name, value in attributes.items():
        if value is not None and value is not False:
            element.set(name.rstrip("_").replace("_", "-"), "" if value is True else _text(value))
    for child in _flat(children):
        if isinstance(child, Element):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + _text(child)
        else:
            element.text = (element.text or "") + _text(child)
    return element


def _flat(children: Iterable[Child]) -> Iterable[Element | str | int | float]:
    for child in children:
        if isinstance(child, Element | str | int | float):
            yield child
        elif child is not None:
            yield from _flat(child)


def _text(value: object) -> str:
    """`value` as text that UTF-8 can hold."""
    return str(value).encode("utf-8", errors="replace").decode("utf-8")


def page_text(title: str, body: Iterable[Element]) -> str:
    """A whole HTML page with the style and the script of this package, which may load nothing and run nothing else."""
    page = files(__package__).joinpath("page")
    style, script = (page.joinpath(name).read_text("utf-8") for name in ("report.css", "report.js"))
    rules = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", http_equiv="Content-Security-Policy", content=rules),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="color-scheme", content="light dark"),
        node("title", title),
        node("style", style),
    )
    html = node("html", head, node("body", body, node("script", script)), lang="en")
    return "<!doctype html>\n" + ElementTree.tostring(html, encoding="unicode", method="html") + "\n"


def _digest(text: str) -> str:
    """The source of a content security policy that allows just this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
