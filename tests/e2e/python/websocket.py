"""Asks for one answer over a WebSocket, websocket.py URL, and prints its events."""

import asyncio
import sys

import aiohttp


async def main() -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(sys.argv[1]) as socket:
        asked = {"model": "acme/some-model", "input": [{"role": "user", "content": "words"}]}
        await socket.send_json({"type": "response.create", "response": asked, **asked})
        async with asyncio.timeout(10):
            async for message in socket:
                print(message.data)
                if message.type != aiohttp.WSMsgType.TEXT or "response.completed" in message.data:
                    break


asyncio.run(main())
