"""Reads a Tidings stream with httpx-sse and resumes after every cut with the id of the last whole frame.

Prints one line for each frame: its id, a tab, its data. Honours `retry:`. Usage: TOKEN=... httpx_sse_reader.py URL
Gives up, with exit code 1, on any status but 200, as EventSource would.
"""

import os
import sys
import time

import httpx
from httpx_sse import connect_sse


def read_once(client: httpx.Client, url: str, cursor: str, retry_ms: int) -> tuple[str, int]:
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    if cursor:
        headers["Last-Event-ID"] = cursor
    try:
        with connect_sse(client, "GET", url, headers=headers) as source:
            source.response.raise_for_status()
            for frame in source.iter_sse():
                if frame.data:
                    sys.stdout.write(f"{frame.id}\t{frame.data}\n")
                    sys.stdout.flush()
                cursor = frame.id or cursor
                retry_ms = frame.retry or retry_ms
    except httpx.TransportError:
        pass
    return cursor, retry_ms


def main() -> None:
    cursor, retry_ms = "", 50
    with httpx.Client(timeout=30, trust_env=False) as client:
        while True:
            cursor, retry_ms = read_once(client, sys.argv[1], cursor, retry_ms)
            time.sleep(retry_ms / 1000)


main()
