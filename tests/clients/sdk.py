"""The official Python SDK against `sandbox mcp`: over stdio and HTTP, with the protocol of today and the one before.

sdk.py BINARY
"""

import asyncio
import base64
import os
import re
import sys
import time

from mcp import Client, StdioServerParameters

BINARY = sys.argv[1]
PNG = base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=')


async def tools_are_described(client):
    [tool] = (await client.list_tools()).tools
    assert tool.name == 'run_code', tool
    assert tool.input_schema['required'] == ['code'], tool.input_schema
    assert 'exit_code' in tool.output_schema['properties'], tool.output_schema
    hints = tool.annotations
    assert (hints.read_only_hint, hints.destructive_hint, hints.open_world_hint) == (False, False, False), hints


async def code_has_output_and_a_value(client):
    result = await client.call_tool('run_code', {'code': 'print("hello")\n6 * 7'})
    record = result.structured_content
    assert not result.is_error, result
    assert (record['status'], record['exit_code'], record['stdout']) == ('exited', 0, 'hello\n'), record
    assert record['result'] == {'text/plain': '42'}, record
    assert any('hello' in block.text for block in result.content if block.type == 'text'), result


async def an_exception_is_an_error_with_its_parts(client):
    result = await client.call_tool('run_code', {'code': '1 / 0'})
    assert result.is_error, result
    exception = result.structured_content['exception']
    assert (exception['type'], exception['message']) == ('ZeroDivisionError', 'division by zero'), exception


async def an_image_is_an_image(client):
    code = f'class Dot:\n    def _repr_png_(self): return {PNG!r}\nDot()'
    result = await client.call_tool('run_code', {'code': code})
    [image] = [block for block in result.content if block.type == 'image']
    assert (image.mime_type, base64.b64decode(image.data)) == ('image/png', PNG), image


async def input_arguments_environment_and_files_arrive(client):
    code = (
        'import os, sys\n'
        'print(sys.stdin.read(), sys.argv[1:], os.environ["NAME"], open("in.txt").read())\n'
        'open("out.txt", "w").write("left behind")'
    )
    files = [{'path': 'in.txt', 'content': 'from a file'}, {'path': 'out.txt', 'fetch': True}]
    arguments = {'code': code, 'stdin': 'input', 'args': ['a b'], 'env': {'NAME': 'value'}, 'files': files}
    result = await client.call_tool('run_code', arguments)
    assert result.structured_content['stdout'] == "input ['a b'] value from a file\n", result
    [resource] = [block.resource for block in result.content if block.type == 'resource']
    assert resource.text == 'left behind', resource


async def a_limit_is_an_error_that_says_which(client):
    result = await client.call_tool('run_code', {'code': 'while True: pass', 'timeout_s': 1})
    assert result.is_error, result
    assert result.structured_content['status'] == 'timeout', result


async def progress_is_told(client):
    told = []

    async def on_progress(progress, total, message):
        told.append((progress, message))

    code = 'import time\nfor _ in range(4): time.sleep(1)'
    await client.call_tool('run_code', {'code': code}, progress_callback=on_progress)
    assert told, 'no progress'


async def a_call_that_is_cancelled_ends_its_machine(client):
    call = asyncio.create_task(client.call_tool('run_code', {'code': 'while True: pass'}))
    await until(lambda: machines() == 1)
    call.cancel()
    await until(lambda: machines() == 0)


async def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, 'it did not come to that'
        await asyncio.sleep(0.01)


def machines():
    """Runs that are children of servers that are children of ours."""
    parents = {}
    for entry in os.listdir('/proc'):
        if entry.isdigit():
            try:
                with open(f'/proc/{entry}/stat') as stat:
                    parents[int(entry)] = int(stat.read().rpartition(')')[2].split()[1])
            except OSError:
                pass  # It ended meanwhile.
    servers = [process for process, parent in parents.items() if parent == os.getpid()]
    return sum(parent in servers for parent in parents.values())


SCENARIOS = [
    tools_are_described,
    code_has_output_and_a_value,
    an_exception_is_an_error_with_its_parts,
    an_image_is_an_image,
    input_arguments_environment_and_files_arrive,
    a_limit_is_an_error_that_says_which,
    progress_is_told,
    a_call_that_is_cancelled_ends_its_machine,
]


async def try_all(name, server, mode):
    async with Client(server, mode=mode) as client:
        print(f'{name}, {mode}: protocol {client.protocol_version}', flush=True)
        for scenario in SCENARIOS:
            await asyncio.wait_for(scenario(client), 300)
            print(f'  {scenario.__name__} ... ok', flush=True)


async def main():
    for mode in 'auto', 'legacy':
        await try_all('stdio', StdioServerParameters(command=BINARY, args=['mcp']), mode)
    server = await asyncio.create_subprocess_exec(BINARY, 'mcp', '--http', '127.0.0.1:0', stderr=asyncio.subprocess.PIPE)
    try:
        line = (await server.stderr.readline()).decode()
        url = re.search(r'http://\S+', line)
        assert url, f'the server did not say where it is: {line}'
        for mode in 'auto', 'legacy':
            await try_all('HTTP', url[0], mode)
    finally:
        server.terminate()
        await server.wait()


asyncio.run(main())
