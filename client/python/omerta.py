# SPDX-License-Identifier: ISC
"""Talk to an omertad from Python.

    import omerta

    with omerta.connect() as provider:
        job = provider.submit(script="print(6 * 7)", lang="python", network=None)
        result = job.wait()
        print(result.state, result.stdout.decode(), result.cpu_seconds)

Needs pyzmq and msgpack (Debian: python3-zmq, python3-msgpack).

Errors are exceptions with a stable ``code`` (docs/protocol.md), ``text`` and ``details``: every one is
an :class:`Error`; NotFound, Denied, Rejected and so on can be caught by themselves.

A Provider belongs to one thread at a time; threads use a Provider each.  No call blocks for ever: each
has a limit in seconds, and where that is None the daemon is asked again every few seconds and must go
on answering.  A connection that was lost is made again by the next call; wait() and output() go on by
themselves, and submit() does with ``job=`` an id of your own (then it may be repeated without harm).
"""

import base64
import difflib
import ipaddress
import itertools
import os
import re
import stat
import time

import msgpack
import zmq

__all__ = [
    "connect", "wg_quick", "Provider", "Job", "Result", "Record", "Count", "Error", "Unreachable", "Disconnected",
    "Timeout", "Denied", "Unauthorized", "NotFound", "Rejected", "WrongState", "Busy", "Invalid",
    "ProtocolError", "FINAL_STATES", "DEFAULT_ENDPOINT",
]
__version__ = "0.1.0"

DEFAULT_ENDPOINT = "ipc:///run/omerta/control.sock"
DEFAULT_EVENTS = "ipc:///run/omerta/events.sock"
PROTOCOL_VERSION = 1

#: A job in one of these states does not leave it.
FINAL_STATES = frozenset((
    "completed", "failed", "timed_out", "cancelled", "rejected", "denied", "expired",
    "rogue_killed", "lost", "dead",
))

_FRAME_MAX = 72 * 1024 * 1024
_SLICE = 10.0  # one long poll of wait and follow
_GRACE = 0.5  # the daemon's own time-out answer comes within this
_CANCEL_GRACE = 5.0  # of a cancel that names none
_SILENT_MAX = 3  # long polls without any answer before we give up
_REDIAL = 30.0  # wait and follow look for a lost daemon this long
_REDIAL_STEP = 0.25
_CHUNK = 256 * 1024
_IDLE_STEP = 0.1


# --- errors ------------------------------------------------------------------------------------------


class Error(Exception):
    """What the daemon, or the way to it, refused.  ``code`` is stable, ``text`` is for people."""

    code = "internal"

    def __init__(self, text="", code=None, details=None):
        self.code = code if code is not None else self.code
        self.text = text
        self.details = dict(details or {})
        super().__init__(f"{text} ({self.code})" if text else self.code)


class Unreachable(Error):
    """No daemon answers there."""
    code = "unreachable"


class Disconnected(Error):
    """The connection ended before the answer."""
    code = "disconnected"


class Timeout(Error):
    """No answer in time."""
    code = "timeout"


class Denied(Error):
    """No permission for this."""
    code = "denied"


class Unauthorized(Error):
    """The daemon does not know our key, or we have the wrong one of it."""
    code = "unauthorized"


class NotFound(Error):
    """No such job, rule, file ...; ``details["candidates"]`` may say what was meant."""
    code = "not_found"


class Rejected(Error):
    """The operator's rules reject the job."""
    code = "rejected"


class WrongState(Error):
    """Not possible in the present state."""
    code = "wrong_state"


class Invalid(Error):
    """The request is not valid: a field's name, type or value."""
    code = "invalid"


class Busy(Error):
    """Try again later: a full queue, a limit, a rate, a shutdown."""
    code = "full"


class ProtocolError(Error):
    """The answer makes no sense."""
    code = "protocol"


_BY_CODE = {c.code: c for c in (
    Unreachable, Disconnected, Timeout, Denied, Unauthorized, NotFound, Rejected, WrongState,
    Invalid, Busy, ProtocolError)}
_BY_CODE.update({"unknown_field": Invalid, "too_big": Invalid, "exists": Invalid, "limit": Busy,
                 "rate_limited": Busy, "shutting_down": Busy, "draining": Busy,
                 "disk": Busy})


def _error(body):
    code = str(body.get("code", "internal"))
    return _BY_CODE.get(code, Error)(str(body.get("text", "")), code, body.get("details"))


# --- records -----------------------------------------------------------------------------------------


class Record:
    """A message's fields as attributes; one that is absent is None.

    ``dict(record)`` and ``record["field"]`` work too.  Fields are those of docs/protocol.md.
    """

    def __init__(self, fields):
        self._fields = fields

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._fields.get(name)

    def __getitem__(self, name):
        return self._fields[name]

    def keys(self):
        return self._fields.keys()

    def __iter__(self):
        return iter(self._fields)

    def __contains__(self, name):
        return name in self._fields

    def __eq__(self, other):
        return isinstance(other, Record) and self._fields == other._fields

    def __repr__(self):
        inner = ", ".join(f"{k}={v!r}" for k, v in self._fields.items())
        return f"{type(self).__name__}({inner})"


class Count(int):
    """For how many jobs a verb was done.  ``failed``: an Error for each that it was not done for, with
    the job's name in ``job``.  When it was done for none the last of the errors is raised."""

    failed = ()


def _count(answer):
    count = Count(answer["count"])
    count.failed = [_error(row) for row in answer.get("failed", ())]
    for error, row in zip(count.failed, answer.get("failed", ())):
        error.job = row.get("job")
    return count


class Result(Record):
    """What a job came to: the fields of job.info (state, exit_code, signal, reason, text, wall_ms,
    cpu_ms, mem_peak_kib, rx_bytes, tx_bytes, handshake_ms, files, files_missing, evidence ...), the
    output, and times in seconds.

    ``stdout`` and ``stderr`` are bytes, fetched when they are first asked for.
    """

    def __init__(self, fields, job):
        super().__init__(fields)
        self._job = job
        self._streams = {}

    def _stream(self, name):
        if name not in self._streams:
            self._streams[name] = b"".join(self._job.output(name))
        return self._streams[name]

    @property
    def stdout(self):
        return self._stream("stdout")

    @property
    def stderr(self):
        return self._stream("stderr")

    @property
    def ok(self):
        """True when the script ended with exit status 0."""
        return self.state == "completed"

    @property
    def cpu_seconds(self):
        return _seconds(self.cpu_ms)

    @property
    def wall_seconds(self):
        return _seconds(self.wall_ms)

    @property
    def boot_seconds(self):
        return _seconds(self.boot_ms)

    def file(self, name):
        """The bytes of a file that the job left (one of ``outputs=``)."""
        return self._job.file(name)


def _seconds(ms):
    return None if ms is None else ms / 1000


class Job:
    """A job of a provider.  ``id`` is its id; everything else is asked for."""

    def __init__(self, provider, job_id, accepted=None):
        self.id = job_id
        #: The answer to submit (state, level, ahead, text ...), None for a job that was looked up.
        self.accepted = accepted
        self._provider = provider

    def __repr__(self):
        return f"Job({self.id!r})"

    def info(self):
        """Its row now: a Record of job.info."""
        return self._provider.get(self.id)

    @property
    def state(self):
        """Its state now (asks the daemon)."""
        return self.info().state

    def wait(self, timeout=None):
        """Waits for the end and gives the Result.  Timeout after ``timeout`` seconds (None: none)."""
        fields = self._provider._ask_long("job.wait", {"job": self.id}, timeout)
        return Result(fields, self)

    def output(self, stream="stdout", follow=False, offset=0, on_restart=None):
        """Iterates over pieces (bytes) of "stdout" or "stderr" from ``offset`` on.

        With ``follow`` it goes on until the job has ended.  When another attempt of the job begins,
        ``on_restart(attempt)`` is called and its output follows from the start.
        """
        return self._provider._pieces({"job": self.id, "stream": stream}, follow, offset, on_restart)

    def lines(self, stream="stdout", follow=True, encoding="utf-8"):
        """Iterates over whole lines of text, without their ends."""
        rest = b""
        for piece in self.output(stream, follow):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode(encoding, "replace")
        if rest:
            yield rest.decode(encoding, "replace")

    def file(self, name):
        """The bytes of a file that the job left."""
        return b"".join(self._provider._pieces({"job": self.id, "file": name}, False, 0))

    def save(self, name, path):
        """Writes a file that the job left to ``path``, piece by piece; gives its size."""
        size = 0
        with open(path, "wb") as out:
            for piece in self._provider._pieces({"job": self.id, "file": name}, False, 0):
                size += out.write(piece)
        return size

    def cancel(self, grace=None, reason=None):
        """Ends it; a running script gets SIGTERM and ``grace`` seconds (5)."""
        return self._provider.cancel(self.id, grace=grace, reason=reason)

    def changes(self, state=None, timeout=None):
        """Iterates over the job's row (Records of job.info), at each change of its state, to its end.

        state    begin behind this one; None: with the row as it is now
        timeout  seconds for each change; Timeout when there was none

        For a requester this is what the events are for the operator: a job that waits for approval
        tells here what became of it.  Of changes that follow fast only the last may be told.
        """
        if state is None:
            row = self.info()
            yield row
            state = row.state
        while state not in FINAL_STATES:
            row = Record(self._provider._ask_long(
                "job.wait", {"job": self.id, "from": state}, timeout))
            yield row
            state = row.state

    def hold(self):
        return self._provider.hold(self.id)

    def release(self):
        return self._provider.release(self.id)

    def retry(self):
        return self._provider.retry(self.id)


class Array:
    """Jobs that came with one submit (``array="0-9%4"``).  ``id`` is the array's; each job is ID_INDEX."""

    def __init__(self, provider, array_id, accepted=None):
        self.id = array_id
        #: The answer to submit; None for an array that was looked up.
        self.accepted = accepted
        self._provider = provider

    def __repr__(self):
        return f"Array({self.id!r})"

    def __iter__(self):
        """Its Jobs, in order of submission."""
        for row in self.rows():
            yield Job(self._provider, row.job)

    def __getitem__(self, index):
        """The Job with this index (the one in its environment)."""
        return Job(self._provider, f"{self.id}_{index}")

    def rows(self):
        """The rows of its jobs: Records of job.info."""
        return list(self._provider.list(array=self.id))

    def wait(self, timeout=None):
        """Waits until all have ended; gives their Results in order.  Timeout after ``timeout`` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        return [job.wait(None if until is None else max(0.0, until - time.monotonic())) for job in self]

    def cancel(self, grace=None, reason=None):
        """Ends those that have not ended; gives how many."""
        return self._provider.cancel(self.id, grace=grace, reason=reason)

    def hold(self):
        return self._provider.hold(self.id)

    def release(self):
        return self._provider.release(self.id)

    def retry(self):
        """One more attempt for those that failed; gives how many."""
        return self._provider.retry(self.id)


# --- the connection ----------------------------------------------------------------------------------


def connect(endpoint=None, *, key=None, server=None, timeout=10.0):
    """Gives a Provider that is connected; use it in a ``with`` statement.

    endpoint  "ipc://PATH", "tcp://HOST:PORT" or an absolute path; None: $OMERTA_ENDPOINT or the
              daemon of this machine
    key       our CURVE pair for tcp: a (public, secret) tuple of Z85 texts, or the path of a file that
              `omerta keygen` made; None: $OMERTA_KEY_FILE
    server    the daemon's public key; None: $OMERTA_SERVER_KEY
    timeout   seconds for an answer and for the connection
    """
    provider = Provider(endpoint, key=key, server=server, timeout=timeout)
    try:
        provider.open()
    except BaseException:
        provider.close()
        raise
    return provider


def _read_key_file(path):
    info = os.stat(path)
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise Invalid(f"key file {path} is open to others; chmod 600 it", "denied")
    found = {}
    with open(path, encoding="ascii") as lines:
        for line in lines:
            name, _, value = line.partition("=")
            found[name.strip()] = value.strip()
    if len(found.get("public", "")) != 40 or len(found.get("secret", "")) != 40:
        raise Invalid(f"key file {path} needs the lines public = KEY and secret = KEY", "usage")
    return found["public"], found["secret"]


class _Transport:
    """A DEALER socket that does not reconnect by itself, and requests by id."""

    def __init__(self, endpoint, keys, timeout):
        self.endpoint = endpoint
        self._keys = keys  # (public, secret, server) or None
        self._timeout = timeout
        self._context = zmq.Context()
        self._socket = self._monitor = None
        self._ids = itertools.count(1)
        self._waiting = set()
        self._answers = {}

    def close(self):
        self._drop()
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def _drop(self):
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close(linger=0)
            self._monitor.close(linger=0)
        self._socket = self._monitor = None
        self._waiting.clear()
        self._answers.clear()

    def open(self):
        if self._context is None:
            raise Error("the provider is closed", "usage")
        if self._socket is not None:
            return
        s = self._context.socket(zmq.DEALER)
        s.setsockopt(zmq.LINGER, 0)
        s.setsockopt(zmq.IMMEDIATE, 1)
        # ZeroMQ would reconnect silently, and what was in flight would wait for its time-out.
        s.setsockopt(zmq.RECONNECT_IVL, -1)
        s.setsockopt(zmq.MAXMSGSIZE, _FRAME_MAX)
        s.setsockopt(zmq.HANDSHAKE_IVL, int(self._timeout * 1000))
        if not self.endpoint.startswith("ipc:"):
            s.setsockopt(zmq.IPV6, 1)
            s.setsockopt(zmq.CONNECT_TIMEOUT, int(self._timeout * 1000))
            s.setsockopt(zmq.HEARTBEAT_IVL, 5000)
            s.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15000)
        if self._keys is not None:
            s.curve_publickey, s.curve_secretkey, s.curve_serverkey = (
                k.encode("ascii") for k in self._keys)
        self._socket = s
        self._monitor = s.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED)
        try:
            self._dial()
        except BaseException:
            self._drop()
            raise

    def _dial(self):
        try:
            self._socket.connect(self.endpoint)
        except zmq.ZMQError as e:
            raise Unreachable(f"{self.endpoint}: {e}") from None
        until = time.monotonic() + self._timeout
        while True:
            if not self._monitor.poll(max(0, int((until - time.monotonic()) * 1000))):
                raise Unreachable(f"no answer from {self.endpoint} in {self._timeout} s")
            event = self._event()
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return
            if event in (zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL):
                raise Unauthorized(f"the daemon at {self.endpoint} does not accept us")
            self._raise_unreachable()

    def _event(self):
        frames = self._monitor.recv_multipart()
        return int.from_bytes(frames[0][:2], "little")

    def _raise_unreachable(self):
        if self.endpoint.startswith("ipc://"):
            path = self.endpoint[len("ipc://"):]
            if not os.path.exists(path):
                raise Unreachable(f"no daemon: {path} does not exist")
            if not os.access(path, os.R_OK | os.W_OK):
                raise Denied(f"no permission for {path}")
        raise Unreachable(f"no daemon answers at {self.endpoint}")

    def start(self, kind, body, life):
        """Sends a request; gives its id."""
        self.open()
        # 0 ms would mean the daemon's own default.
        request = next(self._ids)
        frame = msgpack.packb([PROTOCOL_VERSION, kind, request, max(1, int(life * 1000)), body])
        if len(frame) > _FRAME_MAX:
            raise Invalid(f"{kind} is over {_FRAME_MAX} bytes", "too_big")
        self._await_room(life)
        self._socket.send(frame)
        self._waiting.add(request)
        return request

    def _await_room(self, life):
        """Until a request can be sent; on a new connection when the old one has gone.

        A socket without a connection is never ready to send: to wait for that alone is to wait in vain.
        """
        until = time.monotonic() + life
        while True:
            poller = zmq.Poller()
            poller.register(self._socket, zmq.POLLOUT)
            poller.register(self._monitor, zmq.POLLIN)
            ready = dict(poller.poll(max(0, int((until - time.monotonic()) * 1000))))
            if self._socket in ready:
                return
            if self._monitor not in ready:
                raise Timeout("the daemon takes no more requests")
            lost = bool(self._waiting)
            self._drop()
            if lost:
                raise Disconnected("the connection ended before the answer")
            self.open()

    def finish(self, request, until):
        """The (type, body) that answers the request."""
        if request not in self._waiting:
            raise Disconnected("the connection ended before the answer")
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while request not in self._answers:
            left = until - time.monotonic()
            if left <= 0:
                self._waiting.discard(request)
                raise Timeout("the daemon did not answer in time")
            ready = dict(poller.poll(int(left * 1000) + 1))
            while self._socket.poll(0):
                self._take(self._socket.recv())
            if self._monitor in ready and request not in self._answers:
                self._event()
                self._drop()
                raise Disconnected("the connection ended before the answer")
        self._waiting.discard(request)
        return self._answers.pop(request)

    def _take(self, frame):
        """An answer goes to its request; what answers nothing is dropped."""
        try:
            version, kind, request, _, body = msgpack.unpackb(
                frame, raw=False, strict_map_key=True)
        except Exception:  # msgpack has no common base for what it raises
            return
        if isinstance(request, int) and request in self._waiting:
            if version != PROTOCOL_VERSION or not isinstance(kind, str) or not isinstance(body, dict):
                kind, body = "error", {"code": "protocol", "text": "the answer makes no sense"}
            self._answers[request] = (kind, body)


# --- the tunnel --------------------------------------------------------------------------------------

_WG_FILE_MAX = 65536
_WG_HOOK = "commands are not run on the provider"
# Key: (section, field of vpn_config or None, most of a list or the range of a number, why refused).
_WG_KEYS = {
    "PrivateKey": ("Interface", "private_key", None),
    "Address": ("Interface", "addresses", 2),
    "DNS": ("Interface", "dns", 4),
    "MTU": ("Interface", "mtu", (576, 9000)),
    "PreUp": ("Interface", None, _WG_HOOK),
    "PostUp": ("Interface", None, _WG_HOOK),
    "PreDown": ("Interface", None, _WG_HOOK),
    "PostDown": ("Interface", None, _WG_HOOK),
    "Table": ("Interface", None, "routes are made from AllowedIPs alone"),
    "SaveConfig": ("Interface", None, "nothing is saved on the provider"),
    "ListenPort": ("Interface", None, "the provider chooses its port"),
    "FwMark": ("Interface", None, "the provider sets no marks"),
    "PublicKey": ("Peer", "peer_public_key", None),
    "PresharedKey": ("Peer", "preshared_key", None),
    "Endpoint": ("Peer", "endpoint", None),
    "AllowedIPs": ("Peer", "allowed_ips", 64),
    "PersistentKeepalive": ("Peer", "keepalive", (0, 65535)),
}
# What neither a guest nor a resolver may have as its address; the first that fits names it.
_WG_NO_HOST = [(ipaddress.ip_network(net), kind) for net, kind in (
    ("0.0.0.0/8", "unspecified"), ("127.0.0.0/8", "loopback"), ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"), ("240.0.0.0/4", "reserved"), ("::/128", "unspecified"),
    ("::1/128", "loopback"), ("::/8", "reserved"), ("64:ff9b::/32", "reserved"),
    ("2001::/32", "reserved"), ("2002::/16", "reserved"), ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"))]


def wg_quick(source):
    """Reads a wg-quick(8) file; gives the dict that ``submit(vpn=...)`` takes.

    source: its path, or its text (which has more than one line).  What only wg-quick would act on is
    refused by name and line (PreUp, PostUp, PreDown, PostDown, Table, SaveConfig, ListenPort, FwMark),
    and so is every key that is not known: :class:`Invalid`, whose ``code`` is "denied",
    "unknown_field", "unsupported", "too_big" or "invalid".  No text of an error holds a key.
    """
    if hasattr(source, "read"):
        text = source.read()
    elif isinstance(source, os.PathLike) or (isinstance(source, str) and "\n" not in source):
        with open(source, "rb") as f:
            text = f.read(_WG_FILE_MAX + 1)
    else:
        text = source
    text = text.encode() if isinstance(text, str) else bytes(text)
    if len(text) > _WG_FILE_MAX:
        raise Invalid(f"the file has more than {_WG_FILE_MAX} bytes", "too_big")
    return _WgQuick().read(text.decode("utf-8", "replace"))


def _is_word(text):
    return re.fullmatch("[A-Za-z]{1,24}", text, re.ASCII) is not None


class _WgQuick:
    """A file so far.  net/wg_quick.c is the same in C; tests/data/wg_quick.txt has what both do."""

    def __init__(self):
        self.fields = {}
        self.sections = []
        self.line = 0

    def refuse(self, code, text):
        raise Invalid(f"line {self.line}: {text}", code)

    def read(self, text):
        for line in text.split("\n"):
            self.line += 1
            line = line.partition("#")[0].strip(" \t\r\n\v\f")
            if line.startswith("[") and line.endswith("]"):
                self.section(line[1:-1])
            elif line:
                self.pair(line)
        try:
            return _wg_check(self.fields)
        except ValueError as e:
            raise Invalid(f"line {self.line} (end): {e}", "invalid") from None

    def section(self, name):
        known = {"interface": "Interface", "peer": "Peer"}.get(name.lower())
        if known is None:
            self.refuse("unknown_field", "the section is not known")
        if known in self.sections:
            self.refuse("invalid", f"a second [{known}]; a job has one tunnel")
        self.sections.append(known)

    def pair(self, line):
        key, equals, value = (part.strip(" \t\r\n\v\f") for part in line.partition("="))
        if not equals:
            self.refuse("invalid", 'no "name = value"')  # not shown: it may be a key
        if not self.sections:
            self.refuse("invalid", "before the first section")
        section = self.sections[-1]
        for name, (where, field, rule) in _WG_KEYS.items():
            if where == section and name.lower() == key.lower():
                if field is None:
                    self.refuse("denied", f"{name} is refused: {rule}")
                if not value:
                    self.refuse("invalid", f"{name} is empty")
                return self.take(name, field, rule, value)
        if not _is_word(key):
            self.refuse("unknown_field", f"the name is not known in [{section}]")
        near = difflib.get_close_matches(key, _WG_KEYS, 1, 0.75)
        near = f"; is it {near[0]}?" if near else ""
        self.refuse("unknown_field", f'"{key}" is not known in [{section}]{near}')

    def take(self, name, field, rule, value):
        if isinstance(rule, int):
            items = self.fields.setdefault(field, [])
            items.extend(v.strip(" \t\r\n\v\f") for v in value.split(","))
            if len(items) > rule:
                self.refuse("too_big", f"{name} has more than {rule}")
        elif isinstance(rule, tuple):
            least, most = rule
            value = "0" if field == "keepalive" and value == "off" else value
            if not re.fullmatch("[0-9]+", value) or not least <= int(value[-20:]) <= most:
                self.refuse("invalid", f"{name} is not in {least} to {most}")
            self.fields[field] = int(value)
        else:
            # A letter that is no hex digit: a name, not a mistyped address.
            if field == "endpoint" and _wg_endpoint(value) is None and re.search(
                    "[g-zG-Z]", value.rpartition(":")[0]):
                self.refuse("unsupported", "Endpoint has a name; write its address")
            if field in self.fields:
                self.refuse("invalid", f"{name} is there twice")
            self.fields[field] = value


def _wg_ip(text):
    """As inet_pton has it: no zone, no short form.  None: no address."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _wg_cidr(text):
    """An interface (an address and its network), or None."""
    host, slash, prefix = text.partition("/")
    ip = _wg_ip(host)
    if ip is None or (slash and not re.fullmatch("[0-9]{1,20}", prefix)):
        return None
    length = int(prefix) if slash else ip.max_prefixlen
    return None if length > ip.max_prefixlen else ipaddress.ip_interface((ip, length))


def _wg_endpoint(text):
    host, _, port = text.rpartition(":")
    brackets = len(host) >= 2 and host[0] == "[" and host[-1] == "]"
    ip = _wg_ip(host[1:-1] if brackets else host)
    if ip is None or brackets != (ip.version == 6) or not re.fullmatch("[0-9]{1,20}", port):
        return None
    if not 1 <= int(port) <= 65535:
        return None
    return f"[{ip}]:{int(port)}" if brackets else f"{ip}:{int(port)}"


def _wg_key(fields, name):
    text = fields.get(name)
    if not text:
        raise ValueError(f"{name}: is missing")
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    # The text is never shown: it may be a key with one wrong byte.
    if len(key) != 32 or base64.b64encode(key).decode() != text:
        raise ValueError(f"{name}: is not a key (32 bytes in base64)")
    if not any(key):
        raise ValueError(f"{name}: is all zero")


def _wg_kind(ip):
    """Why no host may have this address, or None."""
    return next((kind for net, kind in _WG_NO_HOST if ip.version == net.version and ip in net), None)


def _wg_list(fields, name, parse, what):
    parsed = []
    for text in fields.get(name, ()):
        value = parse(text)
        if value is None:
            raise ValueError(f'{name}: "{text}" is no {what}')
        parsed.append(value)
    return parsed


def _wg_check(fields):
    """vpn_config of what a file said; ValueError names the field that is wrong."""
    for name in ("private_key", "peer_public_key"):
        _wg_key(fields, name)
    if fields.get("preshared_key"):
        _wg_key(fields, "preshared_key")
    addresses = _wg_list(fields, "addresses", _wg_cidr, "address")
    endpoint = _wg_endpoint(fields.get("endpoint", ""))
    if endpoint is None:
        raise ValueError(f'endpoint: "{fields.get("endpoint", "")}" is not ADDRESS:PORT or '
                         "[ADDRESS]:PORT")
    allowed = [i.network for i in _wg_list(fields, "allowed_ips", _wg_cidr, "network")]
    dns = _wg_list(fields, "dns", _wg_ip, "address")
    if not addresses:
        raise ValueError("addresses: is empty")
    for i, address in enumerate(addresses):
        if _wg_kind(address.ip):
            raise ValueError(f"addresses: {address.ip} is a {_wg_kind(address.ip)} address")
        if any(a.version == address.version for a in addresses[:i]):
            raise ValueError(f"addresses: two of IPv{address.version}")
    if not allowed:
        raise ValueError("allowed_ips: is empty")
    mtu = fields.get("mtu", 1420)
    least = 1280 if any(a.version == 6 for a in addresses) else 576
    if mtu < least:
        raise ValueError(f"mtu: not in {least} to 9000")
    for ip in dns:
        # Anywhere else the guest's first look-up would be refused, and end the job.
        if _wg_kind(ip) or not any(ip in n for n in allowed if n.version == ip.version):
            raise ValueError(f"dns: {ip} is not inside allowed_ips")
    return _given(
        private_key=fields["private_key"], peer_public_key=fields["peer_public_key"],
        preshared_key=fields.get("preshared_key"), addresses=[str(a) for a in addresses],
        endpoint=endpoint, allowed_ips=[str(n) for n in allowed],
        dns=[str(ip) for ip in dns] or None, keepalive=fields.get("keepalive") or None, mtu=mtu)


# --- the provider ------------------------------------------------------------------------------------


def _given(**fields):
    return {k: v for k, v in fields.items() if v is not None}


def _bytes(value):
    """Text, bytes, or an open file or path object, as bytes."""
    if hasattr(value, "read"):
        value = value.read()
    elif isinstance(value, os.PathLike):
        with open(value, "rb") as f:
            value = f.read()
    return value.encode() if isinstance(value, str) else bytes(value)


def _ids(jobs):
    return [j.id if isinstance(j, (Job, Array)) else str(j) for j in jobs]


class Provider:
    """A connection to one omertad.  Made by :func:`connect`."""

    def __init__(self, endpoint=None, *, key=None, server=None, timeout=10.0):
        endpoint = endpoint or os.environ.get("OMERTA_ENDPOINT") or DEFAULT_ENDPOINT
        if endpoint.startswith("/"):
            endpoint = "ipc://" + endpoint
        if not endpoint.startswith(("ipc://", "tcp://")):
            raise Invalid(f"{endpoint!r} is no endpoint", "usage")
        key = key or os.environ.get("OMERTA_KEY_FILE")
        server = server or os.environ.get("OMERTA_SERVER_KEY")
        keys = None
        if key and server:
            pair = key if isinstance(key, tuple) else _read_key_file(key)
            keys = (*pair, server)
        self.timeout = timeout
        self._keys = keys
        self._transport = _Transport(endpoint, keys, timeout)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def open(self):
        """Connects, if it is not connected."""
        self._transport.open()

    def close(self):
        """Ends the connection.  Jobs go on."""
        self._transport.close()

    # -- any message

    def call(self, kind, body=None, timeout=None):
        """Sends any message of docs/protocol.md; gives the answer's body as a dict.

        A job.cancel is answered when the job has ended, so without ``timeout`` its grace comes on top
        of the provider's.
        """
        life = self.timeout if timeout is None else timeout
        if timeout is None and kind == "job.cancel":
            grace = (body or {}).get("grace_ms")
            life += _CANCEL_GRACE if grace is None else grace / 1000
        request = self._transport.start(kind, body or {}, life)
        return self._result(request, time.monotonic() + life + _GRACE)

    def call_many(self, requests, timeout=None):
        """Sends several at once: an iterable of (type, body).  Gives the answers in the same order; one
        that failed is the Error itself, not raised."""
        life = self.timeout if timeout is None else timeout
        ids = [self._transport.start(kind, body, life) for kind, body in requests]
        until = time.monotonic() + life + _GRACE
        results = []
        for request in ids:
            try:
                results.append(self._result(request, until))
            except Error as e:
                results.append(e)
        return results

    def _result(self, request, until):
        kind, body = self._transport.finish(request, until)
        if kind == "error":
            error = _error(body)
            error.answered = True
            raise error
        return body

    def _ask_long(self, kind, body, timeout):
        """Asks until there is an answer; only for requests that may be repeated."""
        until = None if timeout is None else time.monotonic() + timeout
        heard = time.monotonic()
        silent = 0
        while True:
            left = _SLICE if until is None else until - time.monotonic()
            if left <= 0:
                raise Timeout(f"not yet, after {timeout} s")
            try:
                return self.call(kind, body, min(left, _SLICE))
            except Timeout as e:
                silent = 0 if getattr(e, "answered", False) else silent + 1
                if silent == _SILENT_MAX:
                    raise
                heard = time.monotonic()
            except (Disconnected, Unreachable, Busy) as e:
                lost = not isinstance(e, Busy) or e.code == "shutting_down"
                if not lost or time.monotonic() - heard > _REDIAL:
                    raise
                time.sleep(_REDIAL_STEP)

    def _pieces(self, query, follow, offset, on_restart=None):
        attempt = None
        while True:
            asked = dict(query, offset=offset, limit=_CHUNK, follow=follow)
            if attempt:
                asked["attempt"] = attempt
            piece = self._ask_long("job.output", asked, None if follow else self.timeout)
            data = piece.get("data", b"")
            data = data.encode() if isinstance(data, str) else data
            if attempt and piece.get("attempt") != attempt and offset > 0:
                offset = 0
                if on_restart is not None:
                    on_restart(piece["attempt"])
            attempt = piece.get("attempt")
            if data and piece.get("offset") != offset:
                raise ProtocolError("a piece of output from another place")
            offset += len(data)
            if data:
                yield data
            if piece.get("end") or (not follow and (not data or offset >= piece.get("size", 0))):
                return
            if not data:
                time.sleep(_IDLE_STEP)

    # -- jobs

    def submit(self, script, lang="python", *, args=(), env=None, stdin=None, files=None,
               outputs=(), cores=None, memory_mib=None, disk_mib=None, timeout=None,
               output_max=None, network=None, vpn=None, activity=None, gpu=None, job=None,
               requeue=None, retries=None, backoff=None, not_before=None, after=(),
               after_any=None, hold=None, array=None, bandwidth_kbit=None, on_behalf=None,
               network_id=None):
        """Submits a job and gives a Job, when it is durable.

        script    the program: text, bytes, an open file, or a pathlib.Path
        lang      its interpreter
        files     a dict from name in the job's directory to content (text, bytes, file, Path)
        outputs   names of files to keep from that directory
        timeout   the job's own time limit in seconds; not_before in seconds since 1970
        network   None: no network card; "tunnel" (the default with ``vpn``)
        vpn       a wg-quick file, as its path or its text (:func:`wg_quick`), or a dict of the
                  fields of vpn_config: private_key, addresses, peer_public_key, endpoint ...
        job       an id of your own: the same id and job again is the same job
        after     jobs (or ids) that must have succeeded first (``after_any``: ended)
        array     many jobs of this body, "0-9", "1,3,5-7" or "0-15:4%2" (two at a time): gives an
                  Array; OMERTA_ARRAY_INDEX, _ID and _COUNT are in the environment of each
        """
        body = _given(
            lang=lang, script=_bytes(script), cores=cores, mem_mib=memory_mib, disk_mib=disk_mib,
            runtime_s=None if timeout is None else int(-(-timeout // 1)), output_max=output_max,
            network=network or ("tunnel" if vpn else "none"),
            vpn=vpn if vpn is None or isinstance(vpn, dict) else wg_quick(vpn),
            activity=activity, gpu=gpu, job=job, requeue=requeue, retries=retries,
            backoff_s=None if backoff is None else int(-(-backoff // 1)),
            not_before=None if not_before is None else int(not_before), after_any=after_any,
            hold=hold, array=array, bandwidth_kbit=bandwidth_kbit, on_behalf=on_behalf,
            network_id=network_id,
            stdin=None if stdin is None else _bytes(stdin), env=env,
            args=[str(a) for a in args] or None, outputs=list(outputs) or None,
            after=_ids(after) or None,
            files=[{"name": n, "data": _bytes(d)} for n, d in files.items()] if files else None)
        accepted = (self.call("job.submit", body) if job is None
                    else self._ask_long("job.submit", body, self.timeout))
        if accepted.get("array"):
            return Array(self, accepted["job"], Record(accepted))
        return Job(self, accepted["job"], Record(accepted))

    def job(self, job_id):
        """The Job with this id, or the unambiguous beginning of one.  NotFound when there is none."""
        return Job(self, self.get(job_id).job)

    def array(self, array_id):
        """The Array with this id, or the unambiguous beginning of one.  NotFound when there is none."""
        return Array(self, self.call("job.list", {"array": array_id, "limit": 1})["array"])

    def get(self, job_id):
        """One job's row: a Record of job.info."""
        return Record(self.call("job.get", {"job": job_id}))

    def list(self, states=(), peer=None, since=None, limit=None, array=None):
        """Iterates over rows (Records of job.info), newest first; ``since`` in seconds since 1970.

        ``array``: the jobs of that array alone, in order.
        """
        query = _given(states=list(states) or None, peer=peer, array=array,
                       since_ms=None if since is None else int(since * 1000))
        left = limit
        while left is None or left > 0:
            query["limit"] = 1000 if left is None else min(left, 1000)
            table = self.call("job.list", query)
            for row in table["jobs"]:
                yield Record(row)
            left = None if left is None else left - len(table["jobs"])
            if not table.get("next"):  # a page may be empty and not the last
                return
            query["cursor"] = table["next"]

    def wait(self, job_id, timeout=None):
        """Waits for a job's end; gives its Result."""
        return Job(self, job_id).wait(timeout)

    def output(self, job_id, stream="stdout", follow=False, offset=0):
        """Iterates over pieces of a job's output."""
        return Job(self, job_id).output(stream, follow, offset)

    def cancel(self, job_id=None, *, state=None, peer=None, level=None, grace=None, reason=None):
        """Cancels a job, or for the operator all of a state, requester or level; gives how many (a Count)."""
        return _count(self.call("job.cancel", _given(
            job=job_id, state=state, peer=peer, level=level, reason=reason,
            grace_ms=None if grace is None else int(grace * 1000))))

    def hold(self, *jobs):
        """Keeps queued jobs from starting; gives how many (a Count)."""
        return _count(self.call("job.hold", {"jobs": _ids(jobs)}))

    def release(self, *jobs):
        """Lets held jobs start; gives how many (a Count)."""
        return _count(self.call("job.release", {"jobs": _ids(jobs)}))

    def retry(self, *jobs):
        """One more attempt for jobs that failed, timed out, were lost or are dead; gives how many (a Count)."""
        return _count(self.call("job.retry", {"jobs": _ids(jobs)}))

    def purge(self, *jobs, states=(), before=None):
        """Removes ended jobs with their output; gives how many (a Count).

        A requester names its own jobs; the operator may give states and age (``before`` in seconds
        since 1970) instead.  At most 10,000 a call.
        """
        return _count(self.call("job.purge", _given(
            jobs=_ids(jobs) or None, states=list(states) or None,
            before_ms=None if before is None else int(before * 1000))))

    def submit_batch(self, jobs):
        """Submits many jobs (dicts of the fields of job.submit) in one request.

        Gives a list in the same order: a Job, or an Error for each that was refused.
        """
        answer = self.call("job.submit_batch", {"jobs": list(jobs)})
        return [Job(self, r["accepted"]["job"], Record(r["accepted"])) if r.get("accepted")
                else _error(r.get("error") or {}) for r in answer["results"]]

    # -- the daemon

    def ping(self):
        """Raises when the daemon does not answer."""
        self.call("ping")

    def status(self):
        """How the daemon is: a Record of daemon.state; ``queue`` and ``filter`` are dicts."""
        return Record(self.call("daemon.status"))

    def queue(self):
        """The queue's counters: a Record of queue.state."""
        return Record(self.call("queue.stats"))

    # -- for the operator

    def pending(self):
        """Jobs that wait for approval."""
        return list(self.list(states=["pending_approval"]))

    def approve(self, *jobs, always=None):
        """Lets held jobs into the queue; ``always``: trusts who asked ("peer") or their networks
        ("network") from now on; whom it cannot trust it does not approve."""
        return _count(self.call("job.approve", _given(jobs=_ids(jobs), trust=always)))

    def deny(self, *jobs, reason=None):
        """Refuses held jobs; gives how many (a Count)."""
        return _count(self.call("job.deny", _given(jobs=_ids(jobs), reason=reason)))

    def move(self, *jobs, to=None, level=None, reason=None):
        """Puts queued jobs to the "front" or "back" of their level, or of another one."""
        return _count(self.call(
            "job.move", _given(jobs=_ids(jobs), to=to, level=level, reason=reason)))

    def usage(self):
        """How jobs ended, waited and ran, per level and requester: a Record of usage.table."""
        return Record(self.call("queue.usage"))

    def pause(self, reason=None):
        """Starts no more jobs."""
        self.call("queue.pause", _given(reason=reason))

    def drain(self, reason=None):
        """Takes no new jobs; what is queued and running goes on."""
        self.call("queue.drain", _given(reason=reason))

    def resume(self):
        """Starts jobs again, and takes new ones."""
        self.call("queue.resume")

    def limit(self, max_jobs):
        """At most so many jobs at one time."""
        self.call("queue.limits", {"max_jobs": max_jobs})

    def rules(self):
        """The rules in order of evaluation; ``origin`` is file or live, ``changed`` what was changed
        live of a file's rule."""
        return [Record(r) for r in self.call("rules.list")["rules"]]

    def add_rule(self, name, kind, priority=None, enabled=None, **settings):
        """Adds a rule; ``settings`` as in the configuration file."""
        self.call("rules.add", self._rule(name, kind, priority, enabled, settings))

    def change_rule(self, name, kind, priority=None, enabled=None, **settings):
        """Replaces a rule's kind and settings; priority and enabled stay when they are not given."""
        self.call("rules.change", self._rule(name, kind, priority, enabled, settings))

    @staticmethod
    def _rule(name, kind, priority, enabled, settings):
        return _given(name=name, kind=kind, priority=priority, enabled=enabled,
                      settings={k: str(v) for k, v in settings.items()} or None)

    def remove_rule(self, name):
        self.call("rules.remove", {"name": name})

    def enable_rule(self, name):
        self.call("rules.enable", {"name": name})

    def disable_rule(self, name):
        self.call("rules.disable", {"name": name})

    def test_rules(self, peer, **request):
        """How a job would be decided: a Record with verdict, text and ``trace``.  Decides nothing.

        request: network_id, cores, mem_mib, disk_mib, runtime_s, gpu, activity
        """
        return Record(self.call("rules.test", dict(request, peer=peer, trace=True)))

    def filter_stats(self):
        return Record(self.call("filter.stats"))

    def reset_filter(self):
        self.call("filter.reset")

    def audit(self, after=0, job=None, since=None, follow=False):
        """Iterates over the audit trail from behind entry ``after``; ``follow``: without end."""
        query = _given(after_seq=after, job=job,
                       since_ms=None if since is None else int(since * 1000), limit=1000)
        while True:
            if follow:
                table = self._ask_long("audit.list", dict(query, follow=True), None)
            else:
                table = self.call("audit.list", query)
            for entry in table["entries"]:
                query["after_seq"] = entry["seq"]
                yield Record(entry)
            query["after_seq"] = table.get("scanned", query["after_seq"])
            if not table["entries"] and not table.get("more"):
                if not follow:
                    return
                time.sleep(_IDLE_STEP)

    def verify_audit(self):
        """A Record with ``intact``, ``entries`` and, when broken, ``bad_seq`` and ``text``."""
        return Record(self.call("audit.verify"))

    def config(self):
        """Settings in force: a list of Records (key, value, origin, live, help)."""
        return [Record(e) for e in self.call("config.show")["entries"]]

    def set_config(self, key, value):
        """Changes a live setting, durably."""
        self.call("config.set", {"key": key, "value": str(value)})

    def unset_config(self, key):
        """Undoes set_config: as the files have it."""
        self.call("config.unset", {"key": key})

    def reload_config(self):
        """Has the files read again, all or nothing; what has changed by it, in words."""
        return self.call("config.reload")["changes"]

    def trust(self, network):
        self.call("config.trust", {"value": network})

    def untrust(self, network):
        self.call("config.untrust", {"value": network})

    def trusted(self):
        """Trusted networks."""
        return self.call("config.trusted")["values"]

    def trust_peer(self, peer):
        self.call("config.trust_peer", {"value": peer})

    def untrust_peer(self, peer):
        self.call("config.untrust_peer", {"value": peer})

    def trusted_peers(self):
        """Trusted peers."""
        return self.call("config.trusted_peers")["values"]

    def block(self, peer):
        self.call("config.block", {"value": peer})

    def unblock(self, peer):
        self.call("config.unblock", {"value": peer})

    def blocked(self):
        """Blocked peers."""
        return self.call("config.blocked")["values"]

    def actors(self):
        """What each actor of the daemon does."""
        return [Record(a) for a in self.call("daemon.actors")["actors"]]

    def trace(self, actor=None, off=False):
        """Traces all actors of this name, or the one of the running job of this id, or no longer (``off``);
        gives what traced ones did last."""
        return self.call("daemon.trace", _given(actor=actor, off=off or None))["text"]

    def metrics(self):
        """All counters of the daemon, Prometheus text."""
        return self.call("daemon.metrics")["text"]

    def stop(self, now=False, timeout=None, reason=None):
        """Drains and ends the daemon; ``now``: cancels running jobs at once; ``reason``: for those
        whose jobs are refused meanwhile."""
        self.call("daemon.stop", _given(
            now=now or None, reason=reason, timeout_ms=None if timeout is None else int(timeout * 1000)))

    def events(self, endpoint=None, timeout=None):
        """Iterates over changes of jobs' states (Records of job.event) as they happen.

        Ends when none came for ``timeout`` seconds (None: never).
        """
        endpoint = endpoint or os.environ.get("OMERTA_EVENTS") or DEFAULT_EVENTS
        with zmq.Context() as context, context.socket(zmq.SUB) as s:
            s.setsockopt(zmq.LINGER, 0)
            s.setsockopt(zmq.MAXMSGSIZE, _FRAME_MAX)
            s.setsockopt(zmq.SUBSCRIBE, b"")
            if self._keys is not None:
                s.curve_publickey, s.curve_secretkey, s.curve_serverkey = (
                    k.encode("ascii") for k in self._keys)
            s.connect(endpoint)
            while s.poll(None if timeout is None else int(timeout * 1000)):
                _, kind, _, _, body = msgpack.unpackb(s.recv_multipart()[-1])
                if kind == "job.event":
                    yield Record(body)
