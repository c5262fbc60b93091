"""A stand-in for HAProxy's runtime API: a Unix socket that answers as 2.6 and 3.0 do, with backends that tests change."""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# The columns of `show stat`. Those that 3.0 has in addition are in the middle; both end with those of its modules, and a comma.
COLUMNS = re.findall(
    r"\w+",
    """
    pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,bck,chkfail,
    chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,check_status,check_code,
    check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,
    srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,ttime,agent_status,agent_code,
    agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode,
    algo,conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,
    qtime_max,ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,
    agg_server_status,agg_server_check_status,agg_check_status
    """,
)
VERSIONS = {
    "2.6": [*COLUMNS, "-", "ssl_sess", "h1_spliced_bytes_out", ""],
    "3.0": [
        *COLUMNS,
        *("srid", "sess_other", "h1sess", "h2sess", "h3sess", "req_other", "h1req", "h2req", "h3req", "proto"),
        *("-", "ssl_sess", "h3_data", "h1_spliced_bytes_out", ""),
    ],
}
STATE_COLUMNS = (
    "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change "
    "srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn "
    "srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port"
)

# What `show stat` says of a check.
PASSED = {"check_status": "L7OK", "check_code": "200", "check_duration": "3", "check_desc": "Layer7 check passed"}
REFUSED = {
    **{"check_status": "L7STS", "check_code": "503", "last_chk": "Service Unavailable"},
    **{"check_duration": "2", "check_desc": "Layer7 wrong status"},
}


@dataclass
class Server:
    """A server of the backend app, and the one that tracks it.

    Attributes:
        admin: `ready`, `drain` or `maint`.
        passes: whether the host passes its health checks.
        is_up: whether HAProxy takes it for healthy.
        checks: health checks that it has to pass until then.
        sessions: in progress, in app and in app_once.
        cookie: with which clients come back.
        check: its last health check.
    """

    admin: str = "ready"
    passes: bool = True
    is_up: bool = True
    checks: int = 0
    sessions: tuple[int, int] = (0, 0)
    cookie: str = ""
    check: dict[str, str] = field(default_factory=lambda: dict(PASSED))


class Runtime:
    """HAProxy.

    Attributes:
        servers: by their names.
        commands: those that changed something, in order.
        before_command: what happens before each command.
        former: sessions of one.test in each process from before a reload, by its id.
    """

    def __init__(self, version: str, servers: dict[str, Server]) -> None:
        """Run with some servers."""
        self.columns, self.servers = VERSIONS[version], servers
        self.commands: list[str] = []
        self.unchecked: list[str] = []
        self.former: dict[int, int] = {}
        self.before_command: Callable[[str], object] = lambda command: None

    def check(self) -> None:
        """Check each server that is not in maintenance, as HAProxy does all the time."""
        for server in self.servers.values():
            if server.admin == "maint":
                continue
            server.check = dict(PASSED if server.passes else REFUSED)
            server.checks = max(0, server.checks - 1) if server.passes else 2
            server.is_up = server.passes and (server.is_up or not server.checks)

    def answer(self, command: str) -> str:
        """Return what a command prints, at either socket."""
        self.before_command(command)
        if command == "show proc":
            return self.processes()
        if command.startswith("@!"):
            pid, _, rest = command[2:].partition(" ")
            if int(pid) not in self.former:
                return f"Can't find the target PID matching the prefix '@!{pid}'\n"
            assert rest == "show stat", "a process that was replaced refuses it: Proxy is disabled."
            return f"# pxname,svname,scur,\napp,one.test,{self.former[int(pid)]},\napp_once,one.test,0,\n\n"
        if command == "show stat":
            self.check()
            return self.statistics()
        if command == "show servers state":
            return self.states()
        if not command.startswith("set server app/"):
            return f"Unknown command: '{command}', but maybe one of the following ones is a better match:\n\n"
        name, what, value = command.removeprefix("set server app/").split()
        if name not in self.servers:
            return "No such server.\n\n"
        self.commands.append(command.removeprefix("set server app/"))
        server = self.servers[name]
        if what == "health":
            server.is_up, server.checks = False, 2
        else:
            if server.admin == "maint" and value != "maint":
                server.is_up = True  # before it is checked, and with the last check of the time before
                if value == "ready":
                    self.unchecked.append(name)
            server.admin = value
            server.is_up = server.is_up and value != "maint"
        return "\n"

    def status(self, server: Server) -> str:
        """Return the column `status`: of a server that is down it does not show that it is drained."""
        if server.admin == "maint":
            return "MAINT"
        if not server.is_up:
            return "DOWN" if server.checks > 1 or not server.passes else "DOWN 1/2"
        return "DRAIN" if server.admin == "drain" else "UP"

    def processes(self) -> str:
        """Return what `show proc` prints."""
        former = [f"{pid:<16}worker          1               0d00h02m05s     3.0.11" for pid in self.former]
        return "\n".join(
            [
                "#<PID>          <type>          <reloads>       <uptime>        <version>",
                "3495            master          1 [failed: 0]   0d00h03m05s     3.0.11",
                "# workers",
                "3750            worker          0               0d00h01m02s     3.0.11",
                *(["# old workers", *former] if former else []),
                *("# programs", "", ""),
            ]
        )

    def statistics(self) -> str:
        """Return what `show stat` prints."""
        rows: list[dict[str, str]] = [{"pxname": "https", "svname": "FRONTEND", "scur": "3", "status": "OPEN"}]
        for index, group in enumerate(("app", "app_once")):
            for name, server in self.servers.items():
                own = {"pxname": group, "svname": name, "scur": str(server.sessions[index]), "stot": "7", "weight": "1"}
                own["status"] = self.status(server) + (f" (via app/{name})" if index and server.admin == "maint" else "")
                if not index and server.admin != "maint":
                    own.update(server.check)
                rows.append({**own, "cookie": server.cookie, "tracked": f"app/{name}" if index else "", "-": "-"})
            rows.append({"pxname": group, "svname": "BACKEND", "scur": "1", "stot": "14", "status": "UP", "weight": "2"})
        lines = [",".join(row.get(column, "") for column in self.columns) for row in rows]
        return "\n".join(["# " + ",".join(self.columns), *lines, "", ""])

    def states(self) -> str:
        """Return what `show servers state` prints."""
        lines = ["1", f"# {STATE_COLUMNS}"]
        for index, group in enumerate(("app", "app_once")):
            for number, (name, server) in enumerate(self.servers.items(), start=1):
                admin = {"ready": 0, "drain": 16 if index else 8, "maint": 2 if index else 1}[server.admin]
                operation = 2 if server.is_up else 0
                address = f"192.0.2.{number}"
                first = f"{3 + index} {group} {number} {name} {address} {operation} {admin}"
                lines.append(f"{first} 1 1 30 15 3 3 6 0 0 0 - 443 - 1 0 - - 0")
        return "\n".join([*lines, "", ""])


@contextmanager
def running(path: Path, version: str, servers: dict[str, Server]) -> Iterator[Runtime]:
    """Let HAProxy answer at a socket, one command for each connection, and its master at `master.sock` beside it."""
    runtime = Runtime(version, servers)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(runtime.answer(self.rfile.readline().decode().strip()).encode())

    paths = (path, path.with_name("master.sock"))
    with (
        socketserver.UnixStreamServer(str(paths[0]), Handler) as own,
        socketserver.UnixStreamServer(str(paths[1]), Handler) as master,
    ):
        threads = [threading.Thread(target=each.serve_forever, args=(0.02,)) for each in (own, master)]
        for thread in threads:
            thread.start()
        try:
            yield runtime
        finally:
            for each in (own, master):
                each.shutdown()
            for thread in threads:
                thread.join()
