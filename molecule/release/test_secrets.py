"""Settings and secrets reach the process byte for byte, and secrets appear nowhere else."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from molecule.conftest import INVENTORY, ROOT, SHOP, Host, Run, play, within
from molecule.release.conftest import deploy as operate
from molecule.release.conftest import serves
from molecule.snapshot import address_of
from slipway.controller.fetch.cache import cache_directory

SNAPSHOT = "twin.test"
CANARY = "canary-7f3a9c"

# Each comes with a canary, so that it can be found where it should not be.
VALUES = [
    "%",
    "%(ENV_HOME)s %s %%",
    '"',
    "'",
    "\\",
    "\\n\\t\\x41",
    "$HOME ${HOME} $(id)",
    "`id`",
    ";",
    " ; comment",
    "# comment",
    "=",
    ",",
    " leading",
    "trailing ",
    "\ttab\t",
    "two\nlines\n",
    "carriage\r\nreturn",
    "ünïcödé",
    "漢字",
    "\U0001f680",
    "{{ 7 * 7 }}",
    "{{ lookup('pipe', 'id') }}",
    "{% raw %}x{% endraw %}",
    "@RELEASE@ @REVISION@",
    "x" * 8192,
    "!vault",
    "yes",
    "0x10",
    "-----BEGIN KEY-----\nMIIB\n-----END KEY-----\n",
    "*&|<>()[]~?",
    "null\x7f\x1b[31m",
]
# What the roles keep secret, found in their specifications, so that a new one is looked for, too. Those of the app come below.
OPTIONS = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
KEPT = {
    name: option
    for options in OPTIONS
    for name, option in options["argument_specs"]["main"]["options"].items()
    if option.get("no_log") and name != "app_secrets"
}
SECRETS = {f"SECRET_{number}": f"{value}{CANARY}{number}{value}" for number, value in enumerate(VALUES)}


def quoted(value: str) -> str:
    """Return a text as YAML that Ansible takes as it is."""
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\x7f")
    return f"!unsafe {text}"


@pytest.fixture
def vault(tmp_path: Path) -> tuple[Path, Path]:
    """An inventory beside the usual one that holds the secrets in a vault, and the vault's password file."""
    folder = tmp_path / "vault"
    folder.mkdir()
    password = folder / "password"
    password.write_text("a password\n", encoding="ascii")
    inventory = folder / "secret"
    variables = inventory / "host_vars" / SNAPSHOT / "vault.yml"
    variables.parent.mkdir(parents=True)
    (inventory / "hosts.yml").write_text(f"all: {{hosts: {{{SNAPSHOT}: }}}}\n", encoding="ascii")
    lines = ["app_secrets:", *(f"  {name}: {quoted(value)}" for name, value in SECRETS.items())]
    forms = {"str": "{}", "dict": "{{KEY: {}}}"}
    lines += [f"{name}: {forms[KEPT[name]['type']].format(CANARY + '-' + name.replace('_', '-'))}" for name in sorted(KEPT)]
    # Where some of them are used.
    lines += ["app_registry_username: ann", "nginx_private_locations: {/.slipway/metrics/host: /run/shop.prom}"]
    lines += ["app_env:", "  EMPTY: ''", f"  PLAIN: {quoted(' pläin % $x ')}"]
    variables.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["ansible-vault", "encrypt", f"--vault-password-file={password}", str(variables)]
    subprocess.run(command, check=True, capture_output=True)
    return inventory, password


def deploy(host: Host, vault: tuple[Path, Path], *arguments: str, playbook: str = "playbooks/deploy.yml") -> Run:
    """Run a playbook with the vault, and have it say all that it can."""
    inventory, password = vault
    options = [f"--inventory={inventory}", f"--vault-password-file={password}", f"--limit={host.name}", "-vvvv", "--diff"]
    return play(*options, f"--extra-vars={json.dumps(address_of(host))}", *arguments, playbook=playbook)


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def test_every_value_reaches_the_process_and_no_other_place(host: Host, vault: tuple[Path, Path], tmp_path: Path) -> None:
    good = deploy(host, vault)
    assert good.code == 0, good.output[-3000:]
    number = serves(host)
    settings = f"/opt/shop/releases/{number}/settings.json"
    # Also when it starts anew.
    for _ in range(2):
        digests = host.ask("/digests").json()
        assert {name: digests.get(name) for name in SECRETS} == {name: digest(value) for name, value in SECRETS.items()}
        assert (digests["EMPTY"], digests["PLAIN"]) == (digest(""), digest(" pläin % $x "))
        host.run(f"supervisorctl restart shop-{number}")
        within(10, host.healthy)

    # A release that says its settings aloud where it fails, and one whose migration does.
    loud = tmp_path / "loud"
    loud.mkdir()
    (loud / "requirements.txt").write_text((SHOP / "requirements.txt").read_text(encoding="ascii"), encoding="ascii")
    (loud / "main.py").write_text(
        "import os\n[print(repr(v), v) for v in os.environ.values()]\nraise RuntimeError(dict(os.environ))\n", encoding="ascii"
    )

    def back_and_forth() -> Run:
        """Leave the release that has the secrets by the host's own command, and go back to it by a playbook."""
        host.run(f"slipway rollback {host.app}")
        assert serves(host) < number
        return deploy(host, vault, f"--extra-vars=release={number}", playbook="playbooks/rollback.yml")

    runs = {
        "a release": good,
        "a dry run": deploy(host, vault, "--check"),
        "site.yml": deploy(host, vault, playbook="site.yml"),
        "a failure": deploy(host, vault, f"--extra-vars=app_source={loud}"),
        "a migration": deploy(host, vault, "--extra-vars={app_migrate_command: 'env; exit 1', app_env: {X: y}}"),
        "a rollback": back_and_forth(),
        "a list": deploy(host, vault, playbook="playbooks/releases.yml"),
    }
    assert [what for what, run in runs.items() if run.code] == ["a failure", "a migration"]
    assert "RuntimeError" in runs["a failure"].output
    assert serves(host) == number
    assert [what for what, run in runs.items() if CANARY in run.output] == []
    assert host.run("cat /etc/nginx/slipway/shop/private.htpasswd").startswith("monitor:")

    sinks = {
        "process list": "ps auxwwww",
        "command lines": "cat /proc/[0-9]*/cmdline",
        "environments of others": "ps -eo pid=,user= | awk '$2 != \"shop\" {print $1}' | xargs -I: cat /proc/:/environ",
        "supervisor's state": "supervisorctl status; supervisorctl avail",
        "supervisor's log": "cat /var/log/supervisor/supervisord.log",
        "supervisor's sections": "cat /etc/supervisor/conf.d/* /etc/supervisor/*.conf",
        "journal": "journalctl --no-pager --all",
        "nginx's logs": "cat /var/log/nginx/*",
        "nginx's configuration": "nginx -T",
        "app's log": f"cat /var/log/shop/{host.live()}.log",
        "history": "cat /opt/shop/history.jsonl",
        "records": "cat /opt/shop/releases/*/release.json /opt/shop/releases/*/runtime.json",
        "programs of the releases": "cat /opt/shop/releases/*/*.py /opt/shop/releases/*/*.conf",
        "Ansible's files": "find /root/.ansible /tmp /var/tmp -type f -exec cat {} +",
        "shell histories": "cat /root/.*history",
        "what others can read": "su -s /bin/sh nobody -c 'grep -rsI . /opt /run/shop /var/log/shop'",
        "what the app owns": "cat /opt/shop/shared/*",
        "uv's cache": "grep -rsla " + CANARY + " /opt/uv/cache",
    }
    leaks = [what for what, command in sinks.items() if CANARY in host.run(f"{command} 2>&1 | tr '\\0' '\\n'", check=False)]
    assert leaks == []
    assert [path for path in ("/nowhere", "/metrics") if CANARY in host.ask(path).body] == []
    # And wherever else on the disk: in the app's configuration, which is root's, and in the settings of releases, which the app's
    # group alone may read.
    found = host.run(f"grep -rslaF {CANARY} / --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev", check=False).split()
    assert {"/etc/slipway/apps/shop.json", settings} <= set(found)
    assert host.run("stat -c '%a %U %G' /etc/slipway/apps/shop.json").split() == ["600", "root", "root"]
    for path in {*found} - {"/etc/slipway/apps/shop.json"}:
        assert path.startswith("/opt/shop/releases/"), path
        assert path.endswith("/settings.json"), path
        assert host.run(f"stat -c '%a %U %G' {path}").split() == ["640", "root", "shop"]
    # Nor on the controller.
    homes = [cache_directory(), Path.home() / ".ansible", INVENTORY.parents[1] / ".artefacts"]
    there = [home for home in homes if home.is_dir()]
    leaked = subprocess.run(["grep", "-rslaF", CANARY, *there], capture_output=True, text=True, check=False).stdout.split()
    assert leaked == []


def test_a_placeholder_is_refused(host: Host) -> None:
    before = serves(host)
    run = operate(host, app_secrets={"KEY": "example"})
    assert run.code != 0
    said = " ".join(run.output.split())
    assert "Nothing was changed" in said
    assert "app_secrets" in said
    assert "placeholders such as changeme or example" in said
    assert serves(host) == before
