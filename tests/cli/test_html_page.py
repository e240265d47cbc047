"""Pieces of pages: whatever a file says is text."""

import pytest
from notebook_html import Page

from eplb_np.cli import html_page
from eplb_np.cli.html_page import Section

SMUGGLED = "</td></p></title></code><script>alert(1)</script><img src='//x' onload=\"x\">&amp;"


@pytest.mark.parametrize(
    "write",
    [
        html_page.paragraph,
        lambda text: html_page.bullets([text]),
        lambda text: html_page.facts({text: "a", "b": text}),
        lambda text: html_page.table(text, ["a", text], [[text, "b"], ["c", text]]),
        lambda text: html_page.commands([text], text),
        lambda text: html_page.page(text, [], [Section("a", text, [])], text),
    ],
)
def test_text_stays_text(write):
    smuggled, plain = Page(write(SMUGGLED)), Page(write("plain"))
    assert [tag for tag, _ in smuggled.elements] == [tag for tag, _ in plain.elements]
    assert [found.keys() for _, found in smuggled.elements] == [
        found.keys() for _, found in plain.elements
    ]
    count = sum(text == SMUGGLED for _, text in smuggled.texts)
    assert count == sum(text == "plain" for _, text in plain.texts) > 0


def test_a_table_marks_what_is_best_and_aligns_numbers():
    page = Page(html_page.table("c", ["name", "n", "text"], [list("abc"), list("def")], best=1,
                                left=["text"]))  # fmt: skip
    rows = [found for tag, found in page.elements if tag == "tr"]
    assert rows == [{}, {}, {"class": "best"}]
    cells = [found for tag, found in page.elements if tag == "td"]
    assert cells == [{"class": "number"}, {}] * 2
    assert page.text_of("th") == ["name", "n", "text", "a", "d"]
    assert html_page.bullets([]) == ""
