"""Work out which load balancers of an inventory are in front of which hosts, and what each needs of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Variables of the hosts behind a balancer that its own defaults follow.
SETTINGS = [
    "app_health_status",
    "app_health_body",
    "app_health_headers",
    "nginx_timeout",
    "nginx_streaming_paths",
    "nginx_streaming_timeout",
]


def balancer_relations(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]], host: str
) -> dict[str, Any]:
    """Return which balancers and backends a host has to do with.

    Args:
        groups: names of hosts by group.
        hostvars: variables by host.
        host: one of them.

    Returns:
        C(balancers), those in front of the host; C(hosts), those behind it if it is a balancer itself, and C(peers), the other
        balancers of the same hosts; C(balanced), all hosts behind some balancer; C(domains) of the balancers in front;
        C(addresses) of the balancers in front, as far as their facts are known, and C(unknown), the other ones; C(settings),
        the variables of the hosts behind it that its defaults follow.
    """
    balancers = list(groups.get("balancer", []))
    if not balancers:
        return _relations()
    behind = {name: list(groups.get(hostvars[name].get("haproxy_group", "web"), [])) for name in balancers}
    hosts = behind.get(host, [])
    front = [name for name in balancers if host in behind[name]] if host not in balancers else []
    known = {name: _addresses(hostvars[name].get("ansible_facts", {})) for name in front}
    return _relations(
        balancers=front,
        hosts=hosts,
        peers=[name for name in balancers if name != host and hosts and behind[name] == hosts],
        balanced=_unique(name for names in behind.values() for name in names),
        domains=_unique(domain for name in front for domain in hostvars[name].get("haproxy_domains") or [name]),
        addresses=_unique(address for addresses in known.values() for address in addresses or []),
        unknown=[name for name, addresses in known.items() if addresses is None],
        # The first of them counts.
        settings={name: hostvars[hosts[0]][name] for name in SETTINGS if name in hostvars[hosts[0]]} if hosts else {},
    )


def _relations(**relations: Any) -> dict[str, Any]:
    """Return relations, with nothing for those that are not given."""
    lists = ("balancers", "hosts", "peers", "balanced", "domains", "addresses", "unknown")
    return {**{name: [] for name in lists}, "settings": {}, **relations}


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
        outward = {route.get("interface") for route in routes}
        every = [str(route["address"]) for route in routes if "address" in route]
        for name in facts.get("interfaces", []):
            interface = facts.get(name) or facts.get(name.replace("-", "_").replace(":", "_")) or {}
            if name in outward or interface.get("type") not in ("bridge", "loopback", None):
                fourth = [interface.get("ipv4"), *interface.get("ipv4_secondaries", [])]
                every += [entry["address"] for entry in [*fourth, *interface.get("ipv6", [])] if entry]
    return _unique(address for address in every if not address.startswith("fe80:"))


def _unique(names: Iterable[str]) -> list[str]:
    """Return each name once, in the order in which they come."""
    return list(dict.fromkeys(names))
