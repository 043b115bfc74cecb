"""Which addresses may be polled."""

from __future__ import annotations

import pytest
from django.conf import settings

from migrations_app.observe.networks import Networks

EVERYTHING = Networks(["0.0.0.0/0", "::/0"])


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "172.16.0.1", "172.31.255.254", "192.168.1.1", "fd12::1"]
)
def test_loopback_and_private_addresses_may_be_polled_by_default(address):
    assert Networks(settings.HEALTH_NETWORKS).refusal(address) == ""


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "2001:4860::8888", "100.64.0.1", "::ffff:8.8.8.8"])
def test_others_are_not_unless_their_network_is_named(address):
    reason = f"{address.removeprefix('::ffff:')} is in none of the networks that may be polled (HEALTH_NETWORKS)"
    assert Networks(settings.HEALTH_NETWORKS).refusal(address).endswith(reason.partition(" ")[2])
    assert EVERYTHING.refusal(address) == ""


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("169.254.169.254", "an address of cloud metadata"),
        ("fd00:ec2::254", "an address of cloud metadata"),
        ("100.100.100.200", "an address of cloud metadata"),
        ("169.254.1.1", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fe80::1%eth0", "a link-local address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("0.0.0.0", "no address of a host"),
        ("::", "no address of a host"),
        ("255.255.255.255", "no address of a host"),
        # In disguise: mapped, compatible, 6to4, NAT64 of both prefixes and of several lengths, Teredo, ISATAP.
        ("::ffff:169.254.169.254", "an address of cloud metadata"),
        ("::ffff:a9fe:a9fe", "an address of cloud metadata"),
        ("::169.254.169.254", "an address of cloud metadata"),
        ("2002:a9fe:a9fe::1", "an address of cloud metadata"),
        ("64:ff9b::169.254.169.254", "an address of cloud metadata"),
        ("64:ff9b:1::a9fe:a9fe", "an address of cloud metadata"),
        ("64:ff9b:1:a9fe:a9:fe00::", "an address of cloud metadata"),
        ("2001:0:a9fe:a9fe::1", "an address of cloud metadata"),
        ("2001:0:808:808::5601:5601", "an address of cloud metadata"),
        ("fd12::5efe:169.254.169.254", "an address of cloud metadata"),
        ("::ffff:224.0.0.1", "a multicast address"),
        ("::ffff:0.0.0.0", "no address of a host"),
    ],
)
def test_some_never_are_in_whatever_form(address, what):
    reason = EVERYTHING.refusal(address)
    assert reason.startswith(address)
    assert reason.endswith(f"is {what}, which is never polled")


def test_an_ordinary_address_behind_a_translator_is_judged_by_its_own_network():
    assert EVERYTHING.refusal("64:ff9b::8.8.8.8") == ""
    assert EVERYTHING.refusal("64:ff9b:1::8.8.8.8") == ""
    assert Networks(["8.0.0.0/8"]).refusal("64:ff9b::8.8.8.8") != ""


def test_what_is_no_address_and_no_network_is_refused():
    assert EVERYTHING.refusal("auth") == "auth is not an address"
    with pytest.raises(ValueError, match="does not appear to be"):
        Networks(["everything"])
