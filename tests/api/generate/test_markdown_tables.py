"""Tables of the generated pages."""

from flashrun.api.generate.markdown_tables import code, table


def test_a_table_has_a_head_a_line_and_ends_with_an_empty_line() -> None:
    assert list(table(("word", "meaning"), [(code("Ready"), "It is.")])) == [
        "| word | meaning |",
        "|---|---|",
        "| `Ready` | It is. |",
        "",
    ]
