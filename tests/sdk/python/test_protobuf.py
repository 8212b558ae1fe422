"""PyPI `centrifuge-python` with Protobuf: payloads of any bytes, everything else as in JSON."""

import json
import unittest

from cent import DisconnectRequest, PublishRequest

from proxy import token
from test_client import ClientCase

BYTES = b"\x00\x01\xff{\n"


class Protobuf(ClientCase):
    def client(self, **options):
        return super().client(use_protobuf=True, **options)

    async def test_any_bytes_reach_subscribers_with_the_publisher(self):
        one, _ = await self.connected(token=token(sub="ada", info={"name": "Ada"}))
        two, _ = await self.connected(token=token(sub="bob"))
        first, first_events, _ = await self.subscribed(one, "room:protobuf")
        _, second_events, _ = await self.subscribed(two, "room:protobuf")
        await first.publish(BYTES)
        for events in (first_events, second_events):
            pub = (await events.until("publication")).pub
            self.assertEqual((pub.data, pub.offset), (BYTES, 1))
            self.assertEqual(pub.info.user, "ada")
            self.assertEqual(json.loads(pub.info.conn_info), {"name": "Ada"})
        history = await first.history(limit=10)
        self.assertEqual([pub.data for pub in history.publications], [BYTES])
        stats = await first.presence_stats()
        self.assertEqual((stats.num_clients, stats.num_users), (2, 2))
        presence = await first.presence()
        self.assertEqual({info.user for info in presence.clients.values()}, {"ada", "bob"})

    async def test_what_was_missed_is_recovered(self):
        client, _ = await self.connected()
        _, events, _ = await self.subscribed(client, "room:recovered")
        self.proxy.api.publish(PublishRequest(channel="room:recovered", data={"n": 1}))
        await events.until("publication")
        await client.disconnect()
        self.proxy.api.publish(PublishRequest(channel="room:recovered", data={"n": 2}))
        await client.connect()
        context = await events.until("subscribed")
        self.assertTrue(context.was_recovering and context.recovered)
        pub = (await events.until("publication")).pub
        self.assertEqual((pub.offset, json.loads(pub.data)), (2, {"n": 2}))

    async def test_publications_of_the_api_arrive_in_order(self):
        client, _ = await self.connected()
        _, events, _ = await self.subscribed(client, "plain:api")
        for n in range(20):
            self.proxy.api.publish(PublishRequest(channel="plain:api", data=n))
        for n in range(20):
            pub = (await events.until("publication")).pub
            self.assertEqual(json.loads(pub.data), n)

    async def test_a_disconnect_of_the_server_is_final(self):
        _, events = await self.connected(token=token(sub="leaver"))
        self.proxy.api.disconnect(DisconnectRequest(user="leaver"))
        self.assertEqual((await events.until("disconnected")).code, 3503)


if __name__ == "__main__":
    unittest.main()
