"""Which hosts of an inventory are balancers, which are behind them, and what each must know of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# What holds for the hosts behind a balancer, and must hold at its door, too.
SETTINGS = ["app_health_status", "nginx_max_body_size", "nginx_timeout", "nginx_streaming_paths", "nginx_streaming_timeout"]


def balancer_relations(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]], host: str
) -> dict[str, Any]:
    """Say what a host has to do with the balancers of an inventory.

    Args:
        groups: names of hosts by group.
        hostvars: variables by host.
        host: one of them.

    Returns:
        C(doors), the balancers in front of the host, and C(in_front), each of them with its group; C(hosts), those behind it
        where it is a balancer, and C(peers), the other balancers of the same ones; C(balanced), all hosts behind some balancer;
        C(issuer), which balancer orders the certificate of all; C(voucher), which one vouches for the hosts, and C(vouchers),
        those of all hosts of the inventory; C(domains), the names that those in front have; C(addresses) of the balancers that
        the host has to do with, as far as they were asked, and C(strangers), who were not; C(settings), what is set for the
        hosts behind it.
    """
    balancers = list(groups.get("balancer", []))
    if not balancers:
        return _relations()
    named = {name: hostvars[name].get("balancer_group", "web") for name in balancers}
    behind = {name: list(groups.get(group, [])) for name, group in named.items()}
    hosts = behind.get(host, [])
    doors = [name for name in balancers if host in behind[name]] if host not in balancers else []
    alike = [name for name in balancers if hosts and behind[name] == hosts]
    peers = [name for name in alike if name != host]
    # Those of the same hosts agree on one, as they do on who orders the certificate.
    firsts = [next(other for other in balancers if behind[other] == behind[name]) for name in balancers]
    vouchers = {name: hostvars[name].get("balancer_issuer", first) for name, first in zip(balancers, firsts, strict=True)}
    known = {name: _addresses(hostvars[name].get("ansible_facts", {})) for name in doors + peers}
    return _relations(
        doors=doors,
        in_front=[[name, named[name]] for name in doors],
        hosts=hosts,
        peers=peers,
        balanced=_unique(name for names in behind.values() for name in names),
        issuer=alike[0] if alike else "",
        voucher=next((vouchers[name] for name in doors + alike), ""),
        vouchers=_unique(vouchers.values()),
        domains=_unique(domain for name in doors for domain in hostvars[name].get("nginx_domains") or [name]),
        addresses=_unique(address for addresses in known.values() for address in addresses or []),
        strangers=[name for name, addresses in known.items() if addresses is None],
        # The first of them speaks for all.
        settings={name: hostvars[hosts[0]][name] for name in SETTINGS if name in hostvars[hosts[0]]} if hosts else {},
    )


def _relations(**relations: Any) -> dict[str, Any]:
    """Return relations, with nothing for those that are not given."""
    lists = ("doors", "in_front", "hosts", "peers", "balanced", "vouchers", "domains", "addresses", "strangers")
    return {**{name: [] for name in lists}, "issuer": "", "voucher": "", "settings": {}, **relations}


def _addresses(facts: Mapping[str, Any]) -> list[str] | None:
    """Return the addresses from which a host reaches others; None where it was not asked for them.

    Those of a bridge for containers or virtual machines are left out, unless the default route leads through it: other hosts have
    a bridge with the same address, and whoever has one there would be taken for the balancer.
    """
    if "all_ipv4_addresses" not in facts:
        return None
    routes = [facts[name] for name in ("default_ipv4", "default_ipv6") if facts.get(name)]
    if not routes and "interfaces" not in facts:
        every = [*facts["all_ipv4_addresses"], *facts.get("all_ipv6_addresses", [])]
    else:
        ways = {route.get("interface") for route in routes}
        every = [str(route["address"]) for route in routes if "address" in route]
        for name in facts.get("interfaces", []):
            interface = facts.get(name) or facts.get(name.replace("-", "_").replace(":", "_")) or {}
            if name in ways or interface.get("type") not in ("bridge", "loopback", None):
                fourth = [interface.get("ipv4"), *interface.get("ipv4_secondaries", [])]
                every += [entry["address"] for entry in [*fourth, *interface.get("ipv6", [])] if entry]
    return _unique(address for address in every if not address.startswith("fe80:"))


def _unique(names: Iterable[str]) -> list[str]:
    """Return each name once, in the order in which they come."""
    return list(dict.fromkeys(names))
