"""Where each key of a TOML text stands."""

from flashrun.cli.config.toml_lines import key_lines


def test_keys_are_found_whatever_their_form() -> None:
    text = '''\
a = 1 # b = 2
"quoted key" = "[x]\\n= 3"
c.d = [
  1, # comment = 1
  {e = 2},
]
multi = """
not = a key
"""
inline = {f = 1, g = {h = "}"}, "i.j" = 2}
[table."x.y"]
k = 'l = "'
[[list]]
m = 1.5
'''
    assert {".".join(path): line for path, line in key_lines(text).items()} == {
        "a": 1,
        "quoted key": 2,
        "c.d": 3,
        "c.d.e": 5,
        "multi": 7,
        "inline": 10,
        "inline.f": 10,
        "inline.g": 10,
        "inline.g.h": 10,
        "inline.i.j": 10,
        "table.x.y": 11,
        "table.x.y.k": 12,
        "list": 13,
        "list.m": 14,
    }
