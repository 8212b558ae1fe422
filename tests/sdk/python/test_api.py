"""PyPI `cent`: every method, alone, asynchronous and in a batch."""

import unittest

import centrifuge
from cent import (
    AsyncClient,
    BatchRequest,
    BoolValue,
    BroadcastRequest,
    CentApiResponseError,
    CentUnauthorizedError,
    ChannelOptionsOverride,
    ChannelsRequest,
    Client as Api,
    Disconnect,
    DisconnectRequest,
    HistoryRemoveRequest,
    HistoryRequest,
    InfoRequest,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    RefreshRequest,
    StreamPosition,
    SubscribeRequest,
    UnsubscribeRequest,
)

from proxy import API_KEY, ClientRecorder, Proxy, after, token


class ApiCase(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.proxy = Proxy()
        cls.api = cls.proxy.api

    @classmethod
    def tearDownClass(cls):
        cls.proxy.stop()

    async def asyncSetUp(self):
        recorder = ClientRecorder()
        self.events = recorder.events
        self.client = centrifuge.Client(self.proxy.url, events=recorder, token=token(sub="ada", info={"a": 1}), proxy=None)
        self.addAsyncCleanup(self.client.disconnect)
        await self.client.connect()
        await self.client.ready()

    async def test_c80_every_method_is_answered(self):
        api = self.api
        first = api.publish(PublishRequest(channel="room:api", data={"n": 1}, tags={"a": "b"}, idempotency_key="k"))
        self.assertEqual(first.offset, 1)
        self.assertTrue(first.epoch)
        again = api.publish(PublishRequest(channel="room:api", data={"n": 9}, idempotency_key="k"))
        self.assertEqual((again.offset, again.epoch), (first.offset, first.epoch))
        self.assertEqual(api.publish(PublishRequest(channel="plain:api", data=1)).offset, 0)
        broadcast = api.broadcast(BroadcastRequest(channels=["room:api", "nowhere:api"], data={"n": 2}))
        self.assertEqual(broadcast.responses[0].result.offset, 2)
        self.assertEqual(broadcast.responses[1].error.code, 102)

        override = ChannelOptionsOverride(force_recovery=BoolValue(value=True))
        since = StreamPosition(offset=1, epoch=first.epoch)
        api.subscribe(SubscribeRequest(user="ada", channel="room:api", info={"seat": 1}, data={"d": 1}, override=override, recover_since=since))
        subscribed = await self.events.until("subscribed")
        self.assertEqual((subscribed.channel, subscribed.data), ("room:api", {"d": 1}))

        presence = api.presence(PresenceRequest(channel="room:api")).presence
        [info] = presence.values()
        self.assertEqual((info.user, info.conn_info, info.chan_info), ("ada", {"a": 1}, {"seat": 1}))
        stats = api.presence_stats(PresenceStatsRequest(channel="room:api"))
        self.assertEqual((stats.num_clients, stats.num_users), (1, 1))
        history = api.history(HistoryRequest(channel="room:api", limit=10))
        self.assertEqual([(pub.offset, pub.data) for pub in history.publications], [(1, {"n": 1}), (2, {"n": 2})])
        self.assertEqual(history.publications[0].tags, {"a": "b"})
        page = api.history(HistoryRequest(channel="room:api", limit=1, since=StreamPosition(offset=2, epoch=history.epoch), reverse=True))
        self.assertEqual([pub.offset for pub in page.publications], [1])
        api.history_remove(HistoryRemoveRequest(channel="room:api"))
        self.assertEqual(api.history(HistoryRequest(channel="room:api", limit=-1)).publications, [])
        channels = api.channels(ChannelsRequest(pattern="room:a*")).channels
        self.assertEqual({name: one.num_clients for name, one in channels.items()}, {"room:api": 1})
        [node] = api.info(InfoRequest()).nodes
        self.assertTrue(node.uid and node.name)

        api.unsubscribe(UnsubscribeRequest(user="ada", channel="room:api"))
        self.assertEqual((await self.events.until("unsubscribed")).channel, "room:api")
        api.refresh(RefreshRequest(user="ada", expire_at=after(3600)))
        api.disconnect(DisconnectRequest(user="ada", whitelist=["nobody"], disconnect=Disconnect(code=4500, reason="go")))
        self.assertEqual((await self.events.until("disconnected")).code, 4500)

    async def test_c80_errors_are_raised(self):
        with self.assertRaises(CentApiResponseError) as raised:
            self.api.publish(PublishRequest(channel="nowhere:api", data={}))
        self.assertEqual(raised.exception.code, 102)
        with self.assertRaises(CentUnauthorizedError):
            Api(f"http://{self.proxy.address}/api", "wrong").info(InfoRequest())

    async def test_c80_batch_answers_every_method_in_order(self):
        requests = [
            PublishRequest(channel="room:batch", data={"n": 1}),
            BroadcastRequest(channels=["room:batch", "plain:batch"], data={"n": 2}),
            SubscribeRequest(user="ada", channel="room:batch"),
            PresenceRequest(channel="room:batch"),
            PresenceStatsRequest(channel="room:batch"),
            HistoryRequest(channel="room:batch", limit=10),
            HistoryRemoveRequest(channel="room:batch"),
            ChannelsRequest(pattern="room:batch"),
            InfoRequest(),
            UnsubscribeRequest(user="ada", channel="room:batch"),
            RefreshRequest(user="ada"),
            DisconnectRequest(user="nobody"),
        ]
        replies = self.api.batch(BatchRequest(requests=requests)).replies
        self.assertEqual(len(replies), len(requests))
        self.assertEqual(replies[0].offset, 1)
        self.assertEqual(replies[1].responses[0].result.offset, 2)
        self.assertEqual(len(replies[3].presence), 1)
        self.assertEqual(replies[4].num_clients, 1)
        self.assertEqual([pub.offset for pub in replies[5].publications], [1, 2])
        self.assertEqual(list(replies[7].channels), ["room:batch"])
        self.assertEqual(len(replies[8].nodes), 1)

    async def test_c80_parallel_batch_answers_in_order(self):
        requests = [PublishRequest(channel=f"room:parallel-{n % 7}", data={"n": n}) for n in range(70)]
        replies = self.api.batch(BatchRequest(requests=requests, parallel=True)).replies
        self.assertEqual(sorted(reply.offset for reply in replies), sorted(n // 7 + 1 for n in range(70)))

    async def test_c80_asynchronous_client_keeps_its_connection(self):
        async with AsyncClient(f"http://{self.proxy.address}/api", API_KEY) as api:
            for n in range(1, 51):
                result = await api.publish(PublishRequest(channel="room:async", data={"n": n}))
                self.assertEqual(result.offset, n)
            replies = (await api.batch(BatchRequest(requests=[InfoRequest()]))).replies
            self.assertEqual(len(replies[0].nodes), 1)


if __name__ == "__main__":
    unittest.main()
