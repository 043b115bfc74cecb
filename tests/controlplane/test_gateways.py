"""The setting GATEWAYS."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.gateways import Place, read_places, shared, write_places

TWO = {
    "gw-2": Place(Path("/gateways/2"), "http://10.0.0.2:8089", "http://10.0.0.2:9901"),
    "gw-3": Place(Path("/gate, ways/3"), "http://10.0.0.3:8089", "http://10.0.0.3:9901"),
}


def test_what_is_written_reads_back():
    assert read_places(write_places(TWO)) == TWO


@pytest.mark.parametrize("text", ["", " ; \n"])
def test_nothing_is_no_gateway(text: str):
    assert read_places(text) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gw-2", "has 'gw-2'; write key=DIR,URL,ADMIN_URL"),
        ("gw-2=/folder,http://a:1", "write key=DIR,URL,ADMIN_URL"),
        ("=/folder,http://a:1,http://a:2", "write key=DIR,URL,ADMIN_URL"),
        ("gw-2=,http://a:1,http://a:2", "write key=DIR,URL,ADMIN_URL"),
        ("gw-2=/folder,a:1,http://a:2", "gives gw-2 the address 'a:1'"),
        ("gw-2=/a,http://a:1,http://a:2;gw-2=/b,http://b:1,http://b:2", "names gw-2 twice"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(text: str, told: str):
    with pytest.raises(ValueError, match=r"^GATEWAYS ") as raised:
        read_places(text)
    assert told in str(raised.value)


def test_two_gateways_share_neither_a_folder_nor_a_port():
    assert shared(TWO.values()) == ""
    for change in ({"folder": Path("/gateways/2")}, {"url": "http://10.0.0.2:8089/"}, {"admin_url": TWO["gw-2"].url}):
        parts = {"folder": Path("/x"), "url": "http://x:1", "admin_url": "http://x:2"} | change
        assert "cannot share" in shared([TWO["gw-2"], Place(**parts)])
