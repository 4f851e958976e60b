"""The floor of this machine: what it costs to receive bytes from loopback, to write them to files and to answer.

No protocol, no checksum, no index: blocking system calls only, one to receive a request, one to answer it, and one for
each file that gets a part of it, as each partition of a request has its own. No broker on this machine that answers each
request when it comes can be cheaper, however it is made. The interpreter's own part, about 1 us a request, is measured
with the same calls on /dev/null and taken off.

What a request costs depends on how long ago the last one was: who sleeps in between has to be woken, and finds its caches
in others' use. So each floor is taken with requests as large and as far apart as a real client's, whose core is busy
meanwhile.
"""

import contextlib
import os
import resource
import socket
import statistics
import tempfile
import time

ANSWER = b"a" * 66
IN_FLIGHT = 5

def warm(directory, size):
    """Has the machine own `size` bytes of memory that is free for the page cache.

    A hypervisor takes memory back that a guest leaves free for some seconds; the first touch afterwards costs more
    than the write itself (here 0.5 to 2.6 CPU-s/GB), at random, on both sides of a pair.
    """
    chunk = b"\1" * (1 << 20)
    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as f:
        for _ in range(max(1, int(size) >> 20)):
            f.write(chunk)


def work(scratch, seconds):
    """Keeps the core and its caches busy, as a client does that makes records."""
    end, at = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        scratch[at : at + 4096] = bytes(4096)
        at = (at + 4096) % len(scratch)


def send(port, size, gap, count, core):
    """The client: a request every `gap` seconds, as long as no more than a few wait for an answer."""
    os.sched_setaffinity(0, {core})
    request, scratch = b"r" * size, bytearray(4 << 20)
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = answered = 0
        while answered < count * len(ANSWER):
            if sent < count and sent - answered // len(ANSWER) < IN_FLIGHT:
                s.sendall(request)
                sent += 1
                work(scratch, gap)
                flags = socket.MSG_DONTWAIT
            else:
                flags = 0
            try:
                got = s.recv(1 << 16, flags)
            except BlockingIOError:
                continue
            if not got:
                return
            answered += len(got)


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def serve(connection, files, size, count):
    """Receives and answers `count` requests and writes a part of each to each of `files`; gives the CPU time."""
    whole, part = memoryview(bytearray(size)), size // len(files)
    since, position = cpu(), 0
    for _ in range(count):
        have = 0
        while have < size:
            n = connection.recv_into(whole[have:])
            if n == 0:
                raise SystemExit("floor: the client is gone")
            have += n
        for i, file in enumerate(files):
            done = 0
            while done < part:
                done += os.pwrite(file, whole[i * part + done : (i + 1) * part], position + done)
        position += part
        connection.send(ANSWER)
    return cpu() - since


def interpreter(size, files, rounds=50_000):
    """The CPU time of one round of the loop above with calls that do nothing."""
    whole, part = memoryview(bytearray(size)), size // files
    sinks = [os.open("/dev/null", os.O_RDWR)] * files
    since, position = cpu(), 0
    for _ in range(rounds):
        have = os.pwrite(sinks[0], whole[0:], position)
        for i, sink in enumerate(sinks):
            done = 0
            while done < part:
                done += os.pwrite(sink, whole[i * part + done : (i + 1) * part], position + done)
        position += have
        os.pwrite(sinks[0], ANSWER, 0)
    os.close(sinks[0])
    return (cpu() - since) / rounds


def measure(directory, size, gap, files, total, cores):
    """CPU seconds for one GB in requests of `size` bytes, `gap` microseconds apart, into so many files; at most 6,000."""
    count = min(6000, max(1, int(total) // size))
    warm(directory, 1.3 * count * size)
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = os.fork()
        if client == 0:
            code = 1
            try:
                send(server.getsockname()[1], size, gap / 1e6, count, cores[1])
                code = 0
            finally:
                os._exit(code)
        os.sched_setaffinity(0, {cores[0]})
        connection = server.accept()[0]
    with connection, contextlib.ExitStack() as kept:
        parts = [kept.enter_context(tempfile.TemporaryFile(dir=directory)) for _ in range(files)]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        spent = serve(connection, [f.fileno() for f in parts], size, count)
    os.waitpid(client, 0)
    return max(0.0, spent - count * interpreter(size, files)) / (count * size / 1e9)


def rows(directory, clients, total, runs, cores):
    """A line of a table for each of `clients`: what it does, its request in bytes, the us that it spends on each, files."""
    yield "| requests as of | bytes | every us | files | CPU-s/GB | us a request | load |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    back_to_back = [(f"back to back, {size >> 10} KiB", size, 0, 1) for size in (16 << 10, 64 << 10, 256 << 10, 1 << 20)]
    for what, size, gap, files in clients + back_to_back:
        found = [measure(directory, size, gap, files, total, cores) for _ in range(runs)]
        middle = statistics.median(found)
        load = os.getloadavg()[0]
        yield f"| {what} | {size} | {gap} | {files} | {middle:.3f} ({min(found):.3f}–{max(found):.3f}) | {middle * size / 1e3:.1f} | {load:.1f} |"
