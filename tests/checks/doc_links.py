#!/usr/bin/env python3
"""Checks that every link of README.md, CHANGELOG.md and docs/ within the tree leads somewhere: to a file or folder that is
there, and, after a #, to one of its headings as GitHub spells them. Links to the internet are left alone.

usage: doc_links.py ROOT
"""
import pathlib
import re
import sys

LINK = re.compile(r"\[([^\]]*)\]\(([^()\s]+)\)")
BLOCK = re.compile(r"^```.*?^```$", re.M | re.S)


def anchors(text: str) -> set[str]:
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", BLOCK.sub("", text), flags=re.M):
        words = re.sub(r"[^\w\- ]", "", LINK.sub(r"\1", heading).strip().lower())
        name, again = words.replace(" ", "-"), 0
        while (name if again == 0 else f"{name}-{again}") in found:
            again += 1
        found.add(name if again == 0 else f"{name}-{again}")
    return found


def faults(root: pathlib.Path, page: pathlib.Path, text: str) -> list[str]:
    """Links of a page with this text that lead nowhere."""
    found = []
    for _, target in LINK.findall(re.sub(r"`[^`\n]*`", "", BLOCK.sub("", text))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        name = f"{page.relative_to(root)}: ({target})"
        if root not in (path, *path.parents) or not (path == page or path.exists()):
            found.append(f"{name}: there is no {file}")
        elif anchor and anchor not in anchors(text if path == page else path.read_text()):
            found.append(f"{name}: {path.name} has no heading #{anchor}")
    return found


def check_itself(root: pathlib.Path) -> None:
    page = root / "docs" / "page.md"
    text = "# One: `two`\n## Same\n## Same\n[a](#one-two) [b](#same-1) [c](../README.md) [d](https://x/y#z)\n`[e](none.md)`\n"
    assert faults(root, page, text) == [], faults(root, page, text)
    for wrong in ("none.md", "#same-2", "../README.md#no-such-heading", "../../outside.md"):
        assert len(faults(root, page, f"{text}[f]({wrong})")) == 1, wrong


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    root = pathlib.Path(sys.argv[1]).resolve()
    check_itself(root)
    pages = [root / "README.md", root / "CHANGELOG.md", *sorted((root / "docs").glob("*.md"))]
    found = [fault for page in pages for fault in faults(root, page, page.read_text())]
    print("\n".join(found) or f"{len(pages)} pages: every link leads somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
