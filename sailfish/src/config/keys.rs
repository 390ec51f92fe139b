//! Every key with what `--print-config` says about it.

/// A section or key, and its comment.
pub struct Key {
    /// The dotted name.
    pub name: &'static str,
    /// What it means, with its unit; one line, or several.
    pub comment: &'static str,
}

/// The sections in the order of printing. `routes` stands before them: it is a key of the top level.
pub const SECTIONS: &[Key] = &[
    key("node", "The process: addresses, threads, engine."),
    key("token", "What login tokens are checked with."),
    key("log", "Logs go to stderr."),
    key("heartbeat", "When a silent client counts as offline: after period_ms + grace_ms without a frame."),
    key("delivery", "How messages are delivered."),
    key("limits", "The most that one connection, address, user or shard may use."),
    key("drain", "How the node drains after SIGTERM or SIGINT."),
    key("router", "The most users, rooms and messages that a router shard holds."),
    key("cluster", "The nodes of a cluster: gateways, routers and bridges. `sailfish up` is a single node."),
    key("link", "Times and limits of the links between nodes."),
    key("control", "The secret of the control API on the admin port."),
    key("http", "Limits for callers of the admin port, and the same limits for the backend's port."),
    key("directory", "The Redis in which a cluster keeps which user is connected where."),
    key("backend", "The service for users and money: `sailfish backend`, also a part of `sailfish up`."),
    key(
        "bridge",
        "Where the backend is, for `sailfish up` and `sailfish bridge`. queue_* is for every node that has a bridge.",
    ),
    key("trace", "Traces of packets and requests, for an OpenTelemetry collector."),
    key("tls", "Whom connections to others by TLS trust: https, rediss, MySQL."),
    key("engine", "Buffers and sockets."),
];

/// Every key, in the order of printing.
pub const KEYS: &[Key] = &[
    key(
        "routes",
        "Where each business code goes: to = \"user\", \"room\" or \"bridge\" (the backend), and its class: \"reliable\"\n\
         (receivers ack; retried, and handed over when undelivered) or \"lossy\" (dropped first when a reader is slow).\n\
         A code that is not listed is refused. history_messages, history_bytes and history_ms say how much of it rooms keep;\n\
         routers read them at their start.",
    ),
    key(
        "node.listen",
        "Where clients connect: ADDRESS:PORT. 0.0.0.0 takes every interface, port 0 a free port.",
    ),
    key(
        "node.listen_ws",
        "Where clients connect by WebSocket: ADDRESS:PORT. off: nowhere. auto: 127.0.0.1:5349 of `up` while node.listen has its default,\n\
         else nowhere.",
    ),
    key("node.listen_tls", "Where clients connect by TLS: ADDRESS:PORT. off: nowhere."),
    key("node.listen_wss", "Where clients connect by WebSocket over TLS: ADDRESS:PORT. off: nowhere."),
    key(
        "node.certificates",
        "The certificates and keys of the ports with TLS: an array of PEM files, like [{ chain = \"im.pem\", key = \"im.key\" }]. A client gets the\n\
         one for the host that it names, or else the first. Files that change are read again, at once by SIGHUP.",
    ),
    key(
        "node.client_ca",
        "Asks clients for certificates on the ports with TLS: a PEM file with the certificates of the authorities that are taken for\n\
         clients. off: clients are not asked. A file that changes is read again, at once by SIGHUP.",
    ),
    key(
        "node.client_certificate",
        "required: a client without a certificate of node.client_ca is refused. optional: only one with a wrong certificate is.",
    ),
    key(
        "node.origins",
        "Origins of web pages that may connect by WebSocket: an array, like [\"https://chat.example.com\"]. Empty: any. Clients\n\
         that are no browsers name no origin and may connect.",
    ),
    key(
        "node.proxy_from",
        "Proxies that name their clients by the PROXY protocol (v1 or v2): an array of addresses and networks, like\n\
         10.0.0.0/8. A connection from there begins with that header, on every port for clients; limits for an address are its client's.",
    ),
    key(
        "node.admin",
        "Where metrics, health and the control API are served: ADDRESS:PORT. An address that is not loopback needs control.secret.",
    ),
    key(
        "node.admin_tls",
        "Whether the admin port speaks TLS, with node.certificates. Programs of this machine may speak plain HTTP there too.",
    ),
    key(
        "node.shards",
        "Threads that hold connections; 0 means one for each CPU core that this process may use.",
    ),
    key(
        "node.engine",
        "auto, uring, monoio, epoll or glommio. auto takes uring if the kernel allows it, otherwise epoll.",
    ),
    key("node.pin", "Whether each shard stays on one CPU core, if there are as many shards as CPU cores."),
    key(
        "token.secret",
        "The HS256 secret itself. Empty: secret_file. A secret that is set is not shown by --print-config.",
    ),
    key(
        "token.secret_file",
        "A file with the HS256 secret, used byte for byte but for line ends at its end.\n\
         Empty: the secret that the first run made, in $XDG_STATE_HOME/sailfish or ~/.local/state/sailfish.",
    ),
    key(
        "token.ed25519_public_key",
        "Accept tokens signed by EdDSA with this key too: 64 hexadecimal digits. Empty: none.",
    ),
    key(
        "token.jwks_file",
        "Accept tokens signed with a key of this JSON Web Key Set too (HS256, EdDSA, ES256, RS256). The file is read again when it\n\
         changes. A gateway then takes an HS256 secret only if one of the keys above is set. Empty: none.",
    ),
    key(
        "token.jwks_url",
        "The same, but fetched: https://HOST/PATH, or http:// to a loopback address. Keys stay known while it cannot be fetched; a gateway\n\
         without any key is not ready. Empty: none.",
    ),
    key(
        "token.jwks_refresh_s",
        "How often it is fetched, in s; sooner when a token names a key that is not known.",
    ),
    key(
        "token.audiences",
        "Accept only tokens whose aud names one of these: an array of texts. Empty: aud is not looked at. IM tokens that are made here\n\
         are for the first.",
    ),
    key(
        "token.issuers",
        "Accept only tokens whose iss is one of these: an array of texts. Empty: iss is not looked at. IM tokens that are made here\n\
         are of the first.",
    ),
    key("log.filter", "A level (error, warn, info, debug, trace) or directives like info,sailfish=debug."),
    key("log.format", "text or json."),
    key("heartbeat.period_ms", "How often clients send a heartbeat, in ms. The login's answer tells them."),
    key("heartbeat.grace_ms", "How much longer a client may be silent, in ms."),
    key(
        "delivery.ack_timeout_ms",
        "How long the first try waits for the client's ack, in ms. Each further try waits twice as long.",
    ),
    key("delivery.tries", "How many times a message is written before it is handed over as undelivered."),
    key("delivery.window", "How many messages of one connection may be written and not yet acked."),
    key(
        "delivery.room_interval_ms",
        "The least time between two writes of a room's lossy messages; messages that come sooner leave together. 0: at once.",
    ),
    key("limits.frame_bytes_max", "The longest body of a frame, in bytes."),
    key("limits.connections_max", "Connections of one shard. The limit of open files may allow fewer."),
    key(
        "limits.address_connections_max",
        "Connections of one shard from one address; half of what the open files allow, if that is less.",
    ),
    key("limits.login_deadline_ms", "How long a connection may stay without a login, in ms."),
    key("limits.frames_per_second", "Frames that one connection may send per second, sustained."),
    key("limits.frames_burst", "Frames that one connection may send at once."),
    key("limits.rooms_max", "Rooms that one session may be in."),
    key(
        "limits.reliable_messages_max",
        "Reliable messages that may wait for one connection, those in flight included; past it they are handed over. No less than\n\
         router.pending_receiver_max and router.room_burst together.",
    ),
    key(
        "limits.reliable_bytes_max",
        "Bytes of reliable messages that may wait for one connection, those in flight included. No less than\n\
         router.pending_receiver_bytes_max, a KiB for each message of router.room_burst, and 96 for each message of\n\
         both (see limits.reliable_messages_max).",
    ),
    key(
        "limits.lossy_bytes_max",
        "Bytes of lossy messages that may wait for one connection; past it the oldest are dropped.",
    ),
    key(
        "limits.outbox_bytes_max",
        "Bytes that may wait for all connections of one shard. One connection gets a sixteenth of what is free at most.",
    ),
    key(
        "limits.submitted_max",
        "Messages of one shard's clients that may wait for their owners' answers, and as many pushes of operators besides.",
    ),
    key("limits.submitted_bytes_max", "Bytes of these messages, and of these pushes."),
    key("limits.submitted_user_max", "Messages of one user that may wait for their owners' answers."),
    key("limits.submitted_user_bytes_max", "Bytes of these messages."),
    key(
        "drain.spread_ms",
        "Each client reconnects after a random time up to this, in ms, so that not all come at once.",
    ),
    key("drain.deadline_ms", "How long connections with unacked messages are kept, in ms."),
    key(
        "drain.alternatives",
        "Other nodes for the clients: HOST:PORT of each, as clients reach them; at most 16.",
    ),
    key("router.bindings_max", "Sessions whose users one shard owns; a login past it is refused."),
    key(
        "router.memberships_max",
        "Gateway shards in the rooms that one shard owns; a join past it is refused.",
    ),
    key(
        "router.pending_max",
        "Reliable messages that wait for their receivers; past it senders get `busy`. As many may wait for the bridge, and\n\
         for gateways to agree.",
    ),
    key("router.pending_sender_max", "How many of each of these may come from one user."),
    key(
        "router.pending_receiver_max",
        "How many of each may be for one user, or, while gateways disagree, for one room.",
    ),
    key("router.pending_receiver_bytes_max", "Bytes of those for one user."),
    key(
        "router.pending_timeout_ms",
        "How long a message waits for its receivers, in ms. At least as long as delivery.* and limits.* allow.",
    ),
    key(
        "router.bridge_timeout_ms",
        "How long an undelivered message waits for the bridge before its sender gets `failed`, in ms.",
    ),
    key("router.dedupe_max", "Outcomes that are remembered, to recognise repeated messages."),
    key("router.dedupe_sender_max", "The same for one sender; past it the sender's oldest is forgotten."),
    key("router.dedupe_window_ms", "How long an outcome is remembered, in ms."),
    key(
        "router.settle_ms",
        "How long messages are parked while gateways disagree about owners, or a router has just started, in ms;\nup to four times that while their views keep changing.",
    ),
    key(
        "router.away_ms",
        "How long a gateway shard whose link was lost may come back with its sessions before they are offline, in ms.",
    ),
    key(
        "router.room_messages_per_second",
        "Reliable messages of users that one room takes per second, sustained; past it senders get `busy`.\n\
         Of a longer one, each KiB counts as a message.",
    ),
    key("router.room_burst", "How many of them one room takes at once."),
    key(
        "router.history_messages",
        "Messages of one business code that a room keeps for members who were away; a route's history_messages goes over it, and so\n\
         with the two that follow. 0 of any keeps none.",
    ),
    key("router.history_bytes", "Bytes of these, about 384 for each message besides."),
    key("router.history_ms", "How long they are kept, in ms."),
    key(
        "router.history_bytes_max",
        "What all rooms of one shard may keep, in bytes; past it the room that has most forgets its oldest.",
    ),
    key(
        "cluster.node",
        "The number of this node, 1 to 1023, different for every node. 0: 1 for a router, 2 for a gateway, 3 for a bridge.",
    ),
    key(
        "cluster.listen",
        "Where a router or a bridge listens for links: ADDRESS:PORT for its shard 0, PORT + i for shard i.\n\
         The default of a bridge is 127.0.0.1:5400.",
    ),
    key(
        "cluster.advertise",
        "The address for links that a router writes into the directory: ADDRESS:PORT. Empty: cluster.listen.",
    ),
    key(
        "cluster.routers",
        "Where each router listens for links: an array of \"ADDRESS:PORT\". Empty: those in the directory, or\n127.0.0.1:5350 without one.",
    ),
    key(
        "cluster.bridges",
        "Where each bridge listens for links: an array of \"ADDRESS:PORT\". Gateways open links there. A router that knows of a bridge\n\
         keeps events for it from the start, another one only after a bridge has linked. Empty: there is no bridge.",
    ),
    key(
        "cluster.secret",
        "The secret that all nodes of the cluster share, at least 16 bytes. Empty: secret_file. --print-config does not show it.",
    ),
    key(
        "cluster.secret_file",
        "A file with that secret. Empty: the one that the first run made, beside the token secret; copy it to every machine.",
    ),
    key(
        "cluster.tls",
        "Whether links are encrypted by TLS 1.3, with a key that is derived from the secret. off: this node opens links in\n\
         clear and takes both. optional: it opens links with TLS and takes both. required: it takes only links with TLS.",
    ),
    key(
        "link.lease_ms",
        "How long a node may be silent, in ms, before a router treats it and its users as gone; gateways wait half as long.",
    ),
    key("link.ping_ms", "How often an idle link sends a sign of life, in ms."),
    key(
        "link.interval_us",
        "The least time between two flushes of a busy shard's links, in us; messages that come sooner leave together. 0: at once.",
    ),
    key("link.window_bytes", "Bytes that may be on their way to one shard and not yet confirmed."),
    key("link.queue_bytes_max", "Bytes that may wait for one shard before this shard stops reading clients."),
    key(
        "control.secret",
        "The secret that callers send as `Authorization: Bearer`. Empty: none is needed, and the port must be on loopback. It is not shown.",
    ),
    key(
        "http.connections_max",
        "Open connections of one port; a sixteenth of the process's open files, if that is less. Past it, the connection\n\
         that has waited longest for its caller is closed.",
    ),
    key("http.address_connections_max", "The same for one address; half of all, if that is less."),
    key(
        "http.header_timeout_ms",
        "How long the header of a request may take, from the connect or from its first byte, in ms.",
    ),
    key("http.idle_timeout_ms", "How long a connection may stay open between two requests, in ms."),
    key("http.body_timeout_ms", "How long the body of a request may take, in ms."),
    key("http.answer_timeout_ms", "How long an answer may take to leave, in ms."),
    key("http.bodies_bytes_max", "Bytes of bodies in memory; past it requests are answered 503."),
    key("http.address_bodies_bytes_max", "The same for requests from one address."),
    key(
        "http.requests_max",
        "Requests that a backend works on at a time. Others wait for their turn; after 10 s they are answered 503.",
    ),
    key("http.address_requests_max", "The same for one address."),
    key(
        "http.address_refusals_per_second",
        "Requests from one address that may be answered 4xx in a second, and ten times as many at once; past it all are answered 429.",
    ),
    key(
        "http.trusted_proxies",
        "Proxies whose X-Forwarded-For is believed: an array of addresses and networks, like 10.0.0.0/8. Limits for an address\n\
         then count for the callers of the proxy, not for the proxy.",
    ),
    key(
        "directory.redis",
        "redis://HOST:PORT, redis://USER:PASSWORD@HOST:PORT/DB, or several servers of a Redis Cluster with commas.\n\
         Empty: none. A password is not shown by --print-config.",
    ),
    key(
        "directory.redis_sentinels",
        "Redis Sentinels, as backend.redis_sentinels. Then directory.redis names the master as they do: redis://USER:PASSWORD@mymaster/DB.",
    ),
    key("directory.prefix", "The prefix of every key in Redis."),
    key(
        "directory.lease_ms",
        "How long a node counts as alive after it last renewed its lease, in ms. It renews three times in that time.",
    ),
    key("directory.timeout_ms", "How long Redis may take to connect, and to answer a batch, in ms."),
    key(
        "directory.queue_max",
        "Records that may wait for Redis; past it they are dropped and written again later.",
    ),
    key(
        "directory.history",
        "Keep the history of rooms in Redis too, so that it outlives the router that owns the room.",
    ),
    key("backend.listen", "Where the HTTP API is served: ADDRESS:PORT."),
    key(
        "backend.tls",
        "Whether its port speaks TLS, with node.certificates. Programs of this machine may speak plain HTTP there too.",
    ),
    key(
        "backend.database",
        "sqlite:FILE or mysql://USER:PASSWORD@HOST:PORT/NAME. Empty: a SQLite file beside the token secret. A password is not shown.",
    ),
    key(
        "backend.replicas",
        "Replicas of a MySQL database, for reads: an array of URLs. Empty: the primary serves them.",
    ),
    key(
        "backend.redis",
        "redis://HOST:PORT for cache and queue. Empty: cache in the process, queue in a table of the database; for one process only.",
    ),
    key(
        "backend.redis_sentinels",
        "Redis Sentinels: an array of redis://HOST:26379 or redis://USER:PASSWORD@HOST:26379, or rediss.\n\
         Then backend.redis names the master as they do, with what Redis itself wants: redis://USER:PASSWORD@mymaster/DB.",
    ),
    key("backend.prefix", "The prefix of every key in Redis."),
    key(
        "backend.database_connections_max",
        "Connections to the primary, and to each replica; at most 4 read an SQLite file.",
    ),
    key(
        "backend.replica_lag_ms_max",
        "A replica further behind than this, in ms, is not used. After a write, a user's reads go to the primary for twice as long.",
    ),
    key("backend.app", "The app that users belong to."),
    key("backend.phone_country", "The country code, without its +, of phone numbers that have none."),
    key(
        "backend.push_url",
        "The push API for messages to clients: http://HOST:PORT, the admin port of a bridge, a gateway or `up`.",
    ),
    key("backend.im_address", "The gateway address that POST /im/token gives to clients: HOST:PORT."),
    key(
        "backend.im_websocket",
        "Where browsers reach gateways, which clients are told: ws://HOST:PORT or wss://HOST:PORT. Empty: nowhere; of `up`, its own\n\
         port for WebSocket.",
    ),
    key(
        "backend.internal_secret",
        "The bearer token of your own services for /internal/. Empty: the one that the first run made, beside the\n\
         token secret. It is not shown.",
    ),
    key(
        "backend.im_token_ttl_s",
        "How long an IM token is valid, in s. A session ends with its token, unless the client renews it on the live connection.",
    ),
    key("backend.login_ttl_days", "How long a login is valid, in days."),
    key(
        "backend.logins_per_minute",
        "Logins that one phone may try in a minute from one address, and IM tokens that one user may get.",
    ),
    key(
        "backend.login_tries_per_address_minute",
        "Logins that one address may try in a minute, for all phones.",
    ),
    key(
        "backend.codes_per_phone_day",
        "Login codes for one phone in a day that were asked for at addresses where the phone has not logged in within 30 days.\n\
         One address may ask for half of that.",
    ),
    key(
        "backend.codes_per_address_hour",
        "Login codes that one address may ask for in an hour, for all phones.",
    ),
    key("backend.codes_per_minute", "Login codes that are sent to all phones in a minute."),
    key(
        "backend.sms_url",
        "The service that sends login codes to phones: http://HOST:PORT/PATH. Empty: none, and nobody can log in without backend.mock.",
    ),
    key(
        "backend.sms_secret",
        "The secret that signs requests to it, in the same way as bridge.secret. It is not shown.",
    ),
    key(
        "backend.hook_secret",
        "The secret that signs requests to the services below, in the same way as bridge.secret. It is not shown.",
    ),
    key(
        "backend.before_send_url",
        "The service that is asked about messages to rooms before they are sent: http://HOST:PORT/PATH. Empty: none.",
    ),
    key(
        "backend.before_send_codes",
        "The business codes that it is asked about. Give each a route to \"bridge\" too.",
    ),
    key("backend.before_send_class", "How members get these messages: \"lossy\" or \"reliable\"."),
    key("backend.before_send_timeout_ms", "How long the service may take, in ms."),
    key("backend.before_send_failing", "What happens to messages while it fails: \"refuse\" or \"allow\"."),
    key(
        "backend.login_hook_url",
        "The service that is asked about logins: http://HOST:PORT/PATH. Empty: none.",
    ),
    key("backend.login_hook_timeout_ms", "How long the service may take, in ms."),
    key("backend.login_hook_failing", "What happens to logins while it fails: \"allow\" or \"refuse\"."),
    key(
        "backend.offline_push_url",
        "The service that gets a notification for each message that waits in an inbox: http://HOST:PORT/PATH. Empty: none.",
    ),
    key(
        "backend.after_gift_url",
        "The service that gets each paid gift: http://HOST:PORT/PATH. Empty: none.",
    ),
    key("backend.hook_timeout_ms", "How long these two services may take for a batch, in ms."),
    key(
        "backend.hook_events_max",
        "Events that wait for each of these two services. One user may have a tenth of what is free; what does not fit is dropped.",
    ),
    key("backend.users_read_per_minute", "Users that one user may read by POST /users/batch in a minute."),
    key("backend.profile_changes_per_minute", "Changes of its profile that one user may make in a minute."),
    key("backend.gifts_per_second", "Gifts that one user may send in a second."),
    key(
        "backend.gift_refusals_per_minute",
        "Refused gifts of one user in a minute, in each process. Past that, all gifts of the user are turned away without a check.\n\
         After 25 times as many in a day, a minute allows one.",
    ),
    key("backend.gift_batch_max", "The most gifts in one transaction."),
    key(
        "backend.gift_wait_ms",
        "How long a sender waits for the commit of a gift, in ms. After that it must ask again; nothing is promised then.",
    ),
    key(
        "backend.second_delete_ms",
        "How long after a write its cache entry is deleted a second time, in ms.",
    ),
    key(
        "backend.inbox_messages_max",
        "Messages in the inbox of one receiver, and as many of the backend's own. One sender may have a tenth of what is free.",
    ),
    key("backend.inbox_bytes_max", "Bytes of these, shared in the same way."),
    key("backend.inbox_sender_messages_max", "Messages of one sender in all inboxes together."),
    key("backend.inbox_sender_bytes_max", "Bytes of these."),
    key("backend.order_ttl_s", "How long an order may stay unpaid, in s."),
    key("backend.orders_open_max", "Orders of one user that may be unpaid and not expired."),
    key("backend.rooms_per_day", "Rooms that one user may open in a day."),
    key(
        "backend.public_url",
        "Where clients reach the API, for links: https://HOST. Empty: http:// and backend.listen.",
    ),
    key(
        "backend.pay_url",
        "The payment provider's page; {order_id} and {amount_cents} are replaced. Empty: the mock provider's.",
    ),
    key(
        "backend.provider_secret",
        "The secret with which the payment provider signs callbacks. Empty: all are refused. It is not shown.",
    ),
    key(
        "backend.mock",
        "Whether the mock payment provider and the mock SMS sender have pages. Login codes are in the log then. For demonstrations only.",
    ),
    key(
        "bridge.mode",
        "auto: `up` has its own backend, other nodes have none. off: no backend; events are dropped and counted.\n\
         http: POST to bridge.url. redis: streams in bridge.redis.",
    ),
    key(
        "bridge.url",
        "The backend's address for events: http://HOST:PORT, with a path if you like; /bridge/events is appended.",
    ),
    key(
        "bridge.secret",
        "The secret that signs requests to the backend. Empty: secret_file. --print-config does not show it.",
    ),
    key(
        "bridge.secret_file",
        "A file with that secret. Empty: the one that the first run made, beside the token secret.",
    ),
    key("bridge.redis", "redis://HOST:PORT or redis://USER:PASSWORD@HOST:PORT/DB. A password is not shown."),
    key("bridge.prefix", "The prefix of the name of every stream."),
    key(
        "bridge.lanes",
        "How many batches are under way at a time. All events of one user use the same lane.",
    ),
    key("bridge.batch_max", "The most events in a batch."),
    key("bridge.timeout_ms", "How long a batch may take before it counts as failed, in ms."),
    key(
        "bridge.retry_first_ms",
        "The wait after the first failure, in ms; it doubles with each further one.",
    ),
    key("bridge.retry_max_ms", "The longest wait, in ms."),
    key("bridge.breaker_failures", "Failures in a row after which the bridge sends nothing for a while."),
    key("bridge.breaker_pause_ms", "How long that pause is, in ms."),
    key(
        "bridge.tries_max",
        "How many times a push from the stream is tried before it goes to the dead-letter stream.",
    ),
    key(
        "bridge.queue_messages_max",
        "Requests and undelivered messages that a shard keeps until a bridge has taken them; past it requests fail as busy\n\
         and senders of undelivered messages get `failed`. As many presence events are kept too; past it they are sent again later.",
    ),
    key("bridge.queue_bytes_max", "Bytes of these, and of presence events."),
    key(
        "bridge.queue_user_messages_max",
        "How many requests and undelivered messages, and presence events, one user may have.",
    ),
    key("bridge.queue_user_bytes_max", "Bytes that one user may have of each."),
    key(
        "trace.otlp_url",
        "An OpenTelemetry collector that takes OTLP over HTTP in JSON: http://HOST:PORT or https://HOST:PORT, to which /v1/traces is appended.\n\
         Bridges and backends send spans there. Empty: none.",
    ),
    key(
        "trace.sampled_per_million",
        "Traces of a million that are exported; the others carry the flag 00 in traceparent. The same on bridges and backends.",
    ),
    key(
        "tls.roots",
        "A file with the certificates in PEM of those who sign the certificates of servers. Empty: those of the system.",
    ),
    key(
        "engine.send_buffer_bytes",
        "SO_SNDBUF of each client's connection, in bytes, of which Linux makes twice as much; 0: as much as the kernel likes.",
    ),
    key("engine.recv_buffer_bytes", "SO_RCVBUF of each connection, in bytes; 0 leaves it to the kernel."),
    key(
        "engine.recv_buffers",
        "Receive buffers of one shard, shared by its connections: a power of two up to 32768.",
    ),
    key("engine.recv_buffer_size_bytes", "Size of one receive buffer, in bytes."),
    key("engine.backlog", "Connections that the kernel may hold ready for one shard's listener."),
    key("engine.linger_ms", "How long a closing connection may take to send its last notice, in ms."),
];

const fn key(name: &'static str, comment: &'static str) -> Key {
    Key { name, comment }
}
