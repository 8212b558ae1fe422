"""PyPI `centrifuge-python`: connecting, subscribing, recovery, tokens, disconnect codes."""

import unittest

import centrifuge
from cent import (
    Disconnect,
    DisconnectRequest,
    PublishRequest,
    RefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)

from proxy import PROTOBUF, ClientRecorder, Proxy, SubscriptionRecorder, after, pack, token, unpack

RECONNECT = [3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3499, 4000, 4499]
TERMINAL = [3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3999, 4500, 4999]


class ClientCase(unittest.IsolatedAsyncioTestCase):
    """A server for each class, clients that end with their test."""

    @classmethod
    def setUpClass(cls):
        cls.proxy = Proxy()

    @classmethod
    def tearDownClass(cls):
        cls.proxy.stop()

    def client(self, **options):
        recorder = ClientRecorder()
        options.setdefault("token", token(sub="ada"))
        options.setdefault("max_reconnect_delay", 0.3)
        options.setdefault("use_protobuf", PROTOBUF)
        client = centrifuge.Client(self.proxy.url, events=recorder, proxy=None, **options)
        self.addAsyncCleanup(client.disconnect)
        return client, recorder.events

    async def connected(self, **options):
        client, events = self.client(**options)
        await client.connect()
        await client.ready()
        return client, events

    async def subscribed(self, client, channel, **options):
        recorder = SubscriptionRecorder()
        subscription = client.new_subscription(channel, events=recorder, **options)
        await subscription.subscribe()
        context = await recorder.events.until("subscribed")
        return subscription, recorder.events, context

    def publish(self, channel, first, last):
        for n in range(first, last + 1):
            self.proxy.api.publish(PublishRequest(channel=channel, data={"n": n}))

    async def expect(self, events, first, last):
        for n in range(first, last + 1):
            pub = (await events.until("publication")).pub
            self.assertEqual((pub.offset, unpack(pub.data)), (n, {"n": n}))


class Basics(ClientCase):
    async def test_c79_publications_reach_all_subscribers_with_the_publisher(self):
        one, _ = await self.connected(token=token(sub="ada", info={"name": "Ada"}))
        two, _ = await self.connected(token=token(sub="bob"))
        first, first_events, _ = await self.subscribed(one, "room:publish")
        _, second_events, _ = await self.subscribed(two, "room:publish")
        await first.publish(pack({"text": "grüße"}))
        for events in (first_events, second_events):
            pub = (await events.until("publication")).pub
            self.assertEqual((unpack(pub.data), pub.offset), ({"text": "grüße"}, 1))
            self.assertEqual((pub.info.user, unpack(pub.info.conn_info)), ("ada", {"name": "Ada"}))

    async def test_c79_presence_join_and_leave(self):
        one, _ = await self.connected()
        watcher, events, _ = await self.subscribed(one, "room:presence")
        self.assertEqual((await events.until("join")).info.user, "ada")
        two, _ = await self.connected(token=token(sub="bob"))
        other, _, _ = await self.subscribed(two, "room:presence")
        self.assertEqual((await events.until("join")).info.user, "bob")
        presence = await watcher.presence()
        self.assertEqual(sorted(info.user for info in presence.clients.values()), ["ada", "bob"])
        stats = await watcher.presence_stats()
        self.assertEqual((stats.num_clients, stats.num_users), (2, 2))
        await other.unsubscribe()
        self.assertEqual((await events.until("leave")).info.user, "bob")

    async def test_history_is_paged(self):
        client, _ = await self.connected()
        subscription, _, context = await self.subscribed(client, "room:history")
        for n in range(1, 6):
            await subscription.publish(pack({"n": n}))
        history = await subscription.history(limit=-1)
        self.assertEqual([pub.offset for pub in history.publications], [1, 2, 3, 4, 5])
        self.assertEqual((history.offset, history.epoch), (5, context.stream_position.epoch))
        since = centrifuge.StreamPosition(offset=2, epoch=history.epoch)
        page = await subscription.history(limit=2, since=since)
        self.assertEqual([pub.offset for pub in page.publications], [3, 4])
        page = await subscription.history(limit=2, reverse=True)
        self.assertEqual([pub.offset for pub in page.publications], [5, 4])
        with self.assertRaises(centrifuge.ReplyError) as raised:
            await subscription.history(limit=1, since=centrifuge.StreamPosition(offset=1, epoch="wrong"))
        self.assertEqual(raised.exception.code, 112)

    async def test_refused_commands_raise_with_their_code(self):
        client, _ = await self.connected()
        for call, code in [
            (lambda: client.publish("three:no", pack({})), 103),
            (lambda: client.publish("nowhere:no", pack({})), 102),
            (lambda: client.presence("plain:no"), 108),
            (lambda: client.rpc("method", pack({})), 108),
        ]:
            with self.assertRaises(centrifuge.ReplyError) as raised:
                await call()
            self.assertEqual(raised.exception.code, code)
        recorder = SubscriptionRecorder()
        await client.new_subscription("closed:no", events=recorder).subscribe()
        self.assertEqual((await recorder.events.until("unsubscribed")).code, 103)

    async def test_pings_of_a_quiet_server_keep_the_connection(self):
        client, events = await self.connected(max_server_ping_delay=1.0)
        pings = ClientRecorder().events
        answer = client._handle_ping

        async def answer_and_record():
            await answer()
            pings._record("ping", None)

        client._handle_ping = answer_and_record
        for _ in range(3):
            await pings.until("ping")
        self.assertEqual(len(events.named("connected")), 1)


class Tokens(ClientCase):
    async def test_expired_token_is_replaced_before_the_connection_opens(self):
        asked = []

        async def get_token():
            asked.append(1)
            return token(sub="ada")

        _, events = await self.connected(token=token(sub="ada", exp=after(-10)), get_token=get_token)
        self.assertEqual(len(asked), 1)
        self.assertEqual(events.named("disconnected"), [])

    async def test_connection_is_refreshed_when_its_token_runs_out(self):
        asks = ClientRecorder().events

        async def get_token():
            asks._record("ask", None)
            return token(sub="ada", exp=after(2))

        client, events = await self.connected(token="", get_token=get_token)
        for _ in range(3):
            await asks.until("ask")
        await client.publish("plain:refresh", pack(1))
        self.assertEqual(len(events.named("connected")), 1)

    async def test_subscription_token_is_refreshed(self):
        asks = ClientRecorder().events

        async def get_token(channel):
            asks._record("ask", None)
            return token(sub="ada", channel=channel, exp=after(2))

        client, _ = await self.connected()
        _, events, _ = await self.subscribed(client, "closed:token", get_token=get_token)
        for _ in range(3):
            await asks.until("ask")
        self.proxy.api.publish(PublishRequest(channel="closed:token", data="still"))
        self.assertEqual(unpack((await events.until("publication")).pub.data), "still")
        self.assertEqual(len(events.named("subscribed")), 1)

    async def test_invalid_token_is_terminal(self):
        client, events = self.client(token=token(sub="ada") + "x")
        await client.connect()
        self.assertEqual((await events.until("disconnected")).code, 3500)


class ServerSide(ClientCase):
    async def test_subscriptions_of_the_token_deliver(self):
        _, events = await self.connected(token=token(sub="ada", channels=["room:mine"]))
        context = await events.until("subscribed")
        self.assertEqual((context.channel, context.recoverable), ("room:mine", True))
        self.publish("room:mine", 1, 1)
        publication = await events.until("publication")
        self.assertEqual((publication.channel, unpack(publication.pub.data)), ("room:mine", {"n": 1}))

    async def test_subscriptions_of_the_api_come_and_go(self):
        _, events = await self.connected(token=token(sub="guest"))
        self.proxy.api.subscribe(SubscribeRequest(user="guest", channel="room:guests"))
        self.assertEqual((await events.until("subscribed")).channel, "room:guests")
        self.publish("room:guests", 1, 1)
        self.assertEqual(unpack((await events.until("publication")).pub.data), {"n": 1})
        self.proxy.api.unsubscribe(UnsubscribeRequest(user="guest", channel="room:guests"))
        self.assertEqual((await events.until("unsubscribed")).channel, "room:guests")

    async def test_client_side_subscription_that_the_api_ends_stays_ended(self):
        client, _ = await self.connected(token=token(sub="kicked"))
        _, events, _ = await self.subscribed(client, "plain:kicked")
        self.proxy.api.unsubscribe(UnsubscribeRequest(user="kicked", channel="plain:kicked"))
        self.assertEqual((await events.until("unsubscribed")).code, 2000)


class Recovery(ClientCase):
    async def test_c79_missed_publications_are_recovered_after_a_lost_connection(self):
        client, client_events = await self.connected(min_reconnect_delay=0.3)
        _, events, first = await self.subscribed(client, "room:lost")
        self.publish("room:lost", 1, 2)
        await self.expect(events, 1, 2)
        client._conn.transport.abort()
        await client_events.until("connecting", lambda context: context.code != 0)
        self.publish("room:lost", 3, 6)
        again = await events.until("subscribed")
        self.assertTrue(again.was_recovering and again.recovered)
        self.assertEqual(again.stream_position.epoch, first.stream_position.epoch)
        await self.expect(events, 3, 6)

    async def test_more_missed_than_kept_is_reported(self):
        client, client_events = await self.connected(min_reconnect_delay=0.5)
        _, events, _ = await self.subscribed(client, "three:over")
        client._conn.transport.abort()
        await client_events.until("connecting", lambda context: context.code != 0)
        self.publish("three:over", 1, 8)
        again = await events.until("subscribed")
        self.assertTrue(again.was_recovering)
        self.assertFalse(again.recovered)
        self.publish("three:over", 9, 9)
        await self.expect(events, 9, 9)

    async def test_server_side_subscription_recovers(self):
        client, events = await self.connected(token=token(sub="ada", channels=["room:own"]), min_reconnect_delay=0.3)
        await events.until("subscribed")
        self.publish("room:own", 1, 1)
        await self.expect(events, 1, 1)
        client._conn.transport.abort()
        await events.until("connecting", lambda context: context.code != 0)
        self.publish("room:own", 2, 3)
        self.assertTrue((await events.until("subscribed")).recovered)
        await self.expect(events, 2, 3)


class Restarts(ClientCase):
    async def test_restarted_server_is_a_new_epoch(self):
        client, client_events = await self.connected()
        _, events, first = await self.subscribed(client, "room:restart")
        self.publish("room:restart", 1, 3)
        await self.expect(events, 1, 3)
        self.proxy.kill()
        self.proxy.run_again()
        again = await events.until("subscribed")
        self.assertTrue(again.was_recovering)
        self.assertFalse(again.recovered)
        self.assertNotEqual(again.stream_position.epoch, first.stream_position.epoch)
        self.publish("room:restart", 1, 1)
        await self.expect(events, 1, 1)
        self.assertEqual(client_events.named("disconnected"), [])

    async def test_drained_server_sends_its_clients_to_the_next_one(self):
        client, client_events = await self.connected()
        _, events, _ = await self.subscribed(client, "room:drain")
        self.assertEqual(self.proxy.terminate(), 0)
        away = await client_events.until("connecting", lambda context: context.code != 0)
        self.assertEqual((away.code, away.reason), (3001, "shutdown"))
        self.proxy.run_again()
        await events.until("subscribed")
        self.assertEqual(client_events.named("disconnected"), [])


class Disconnects(ClientCase):
    async def disconnect(self, code):
        user = f"user-{code}"
        client, events = await self.connected(token=token(sub=user))
        reason = Disconnect(code=code, reason="for a test")
        self.proxy.api.disconnect(DisconnectRequest(user=user, disconnect=reason))
        return client, events

    async def test_client_sees_a_closed_transport_and_reconnects_after_3000(self):
        _, events = await self.disconnect(3000)
        away = await events.until("connecting", lambda context: context.code != 0)
        self.assertEqual((away.code, away.reason), (1, "transport closed"))
        await events.until("connected")
        self.assertEqual(events.named("disconnected"), [])

    async def test_client_reconnects_after_reconnecting_codes(self):
        for code in RECONNECT:
            with self.subTest(code=code):
                _, events = await self.disconnect(code)
                await events.until("connected")
                away = await events.until("connecting", lambda context: context.code == code)
                self.assertEqual(away.reason, "for a test")
                await events.until("connected")
                self.assertEqual(events.named("disconnected"), [])

    async def test_client_stays_away_after_terminal_codes(self):
        for code in TERMINAL:
            with self.subTest(code=code):
                client, events = await self.disconnect(code)
                away = await events.until("disconnected")
                self.assertEqual((away.code, away.reason), (code, "for a test"))
                self.assertEqual(client.state, centrifuge.ClientState.DISCONNECTED)

    async def test_expired_connection_comes_back(self):
        _, events = await self.connected(token=token(sub="expired"))
        self.proxy.api.refresh(RefreshRequest(user="expired", expired=True))
        await events.until("connected")
        self.assertEqual((await events.until("connecting")).code, 3005)
        await events.until("connected")


if __name__ == "__main__":
    unittest.main()
