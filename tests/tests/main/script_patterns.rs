//! Well-known script patterns over collections (queues, locks, limiters, boards), compared with Redis.

use crate::scripts::compare;

/// At most so many requests within a window that moves along: one member per request, by time.
const SLIDING_LOG: &str = "
    local now, width, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - width)
    local used = redis.call('ZCARD', KEYS[1])
    if used >= limit then
        local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
        return {0, oldest[2] + width - now}
    end
    redis.call('ZADD', KEYS[1], now, now .. '-' .. used)
    redis.call('PEXPIRE', KEYS[1], width)
    return {1, limit - used - 1}";

/// Tokens come back at a rate; what is left and when stands in a hash.
const BUCKET_IN_HASH: &str = "
    local rate, size, now, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
    local tokens, at = unpack(redis.call('HMGET', KEYS[1], 'tokens', 'at'))
    tokens, at = tonumber(tokens) or size, tonumber(at) or now
    tokens = math.min(size, tokens + math.max(0, now - at) * rate)
    local allowed = tokens >= cost
    if allowed then tokens = tokens - cost end
    redis.call('HSET', KEYS[1], 'tokens', tokens, 'at', now)
    return {allowed and 1 or 0, math.floor(tokens)}";

/// Generic cell rate: one time stands for all that was let through.
const CELL_RATE: &str = "
    local now, each, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
    local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
    local earliest = arrival + each - each * burst
    if now < earliest then return {0, earliest - now} end
    redis.call('SET', KEYS[1], arrival + each, 'PX', arrival + each - now)
    return {1, 0}";

/// A job that is in the queue already is not put there again.
const ENQUEUE_ONCE: &str = "
    if redis.call('SADD', KEYS[2], ARGV[1]) == 0 then return 0 end
    return redis.call('RPUSH', KEYS[1], ARGV[1])";

/// Takes a job, and notes until when it must be finished.
const TAKE_JOB: &str = "
    local job = redis.call('LPOP', KEYS[1])
    if not job then return false end
    redis.call('ZADD', KEYS[2], ARGV[1], job)
    return job";

/// A job is done: it is in no list any more, and may be put in again.
const FINISH_JOB: &str = "
    if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
        return redis.error_reply('LATE job was given to another')
    end
    redis.call('SREM', KEYS[2], ARGV[1])
    return redis.status_reply('DONE')";

/// Jobs whose workers did not finish in time go back to the front.
const REQUEUE_LATE: &str = "
    local late = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
    for i = #late, 1, -1 do
        redis.call('ZREM', KEYS[1], late[i])
        redis.call('LPUSH', KEYS[2], late[i])
    end
    return late";

/// Jobs whose time has come move from the schedule to the queue, some at a time.
const PROMOTE_DUE: &str = "
    local due = redis.call('ZRANGEBYSCORE', KEYS[1], 0, ARGV[1], 'LIMIT', 0, 2)
    if #due == 0 then return 0 end
    redis.call('ZREM', KEYS[1], unpack(due))
    redis.call('RPUSH', KEYS[2], unpack(due))
    return #due";

/// The most urgent, with its data, which goes with it.
const POP_URGENT: &str = "
    local first = redis.call('ZPOPMIN', KEYS[1])
    if #first == 0 then return nil end
    local data = redis.call('HGET', KEYS[2], first[1])
    redis.call('HDEL', KEYS[2], first[1])
    return {first[1], first[2], data}";

/// At most so many holders at a time; one that does not come back loses its place.
const SEMAPHORE: &str = "
    local now, limit, lease = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    if redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('ZCARD', KEYS[1]) < limit then
        redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
        return true
    end
    return false";

/// A lock that its holder may take again.
const REENTRANT_LOCK: &str = "
    if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
        redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
        redis.call('PEXPIRE', KEYS[1], ARGV[2])
        return nil
    end
    return redis.call('PTTL', KEYS[1]) > 0";

/// Gives it back once; the last time frees it.
const REENTRANT_UNLOCK: &str = "
    if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return nil end
    local left = redis.call('HINCRBY', KEYS[1], ARGV[1], -1)
    if left > 0 then return 0 end
    redis.call('DEL', KEYS[1])
    return 1";

/// Many read or one writes.
const READ_LOCK: &str = "
    local mode = redis.call('HGET', KEYS[1], 'mode')
    if mode == 'write' then return {0, redis.call('HKEYS', KEYS[1])} end
    redis.call('HSET', KEYS[1], 'mode', 'read', ARGV[1], 1)
    return {1, redis.call('HLEN', KEYS[1]) - 1}";

/// See [`READ_LOCK`].
const WRITE_LOCK: &str = "
    if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
    return redis.call('HSET', KEYS[1], 'mode', 'write', ARGV[1], 1)";

/// A score that only rises, and who stands around a player.
const BOARD: &str = "
    redis.call('ZADD', KEYS[1], 'GT', ARGV[1], ARGV[2])
    local rank = redis.call('ZREVRANK', KEYS[1], ARGV[2])
    local from = math.max(0, rank - 1)
    return {rank + 1, redis.call('ZREVRANGE', KEYS[1], from, rank + 1, 'WITHSCORES')}";

/// What was seen last, each once, newest first.
const RECENT: &str = "
    redis.call('LREM', KEYS[1], 0, ARGV[1])
    redis.call('LPUSH', KEYS[1], ARGV[1])
    redis.call('LTRIM', KEYS[1], 0, ARGV[2] - 1)
    return redis.call('LRANGE', KEYS[1], 0, -1)";

/// A session's fields, if it is of the version that the caller knows.
const SAVE_SESSION: &str = "
    local version = tonumber(redis.call('HGET', KEYS[1], 'version') or 0)
    if version ~= tonumber(ARGV[1]) then
        return redis.error_reply('STALE version is ' .. version)
    end
    local fields = {}
    for name, value in pairs(cjson.decode(ARGV[2])) do fields[#fields + 1] = {name, value} end
    table.sort(fields, function(a, b) return a[1] < b[1] end)
    for _, field in ipairs(fields) do redis.call('HSET', KEYS[1], field[1], field[2]) end
    redis.call('HSET', KEYS[1], 'version', version + 1)
    redis.call('EXPIRE', KEYS[1], 1800)
    return redis.call('HGETALL', KEYS[1])";

/// Takes goods from the stock for a while, all that are asked for or none.
const RESERVE: &str = "
    for i = 1, #ARGV, 2 do
        local have = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or 0)
        if have < tonumber(ARGV[i + 1]) then return {err = 'SHORT ' .. ARGV[i] .. ' ' .. have} end
    end
    for i = 1, #ARGV, 2 do
        redis.call('HINCRBY', KEYS[1], ARGV[i], -ARGV[i + 1])
        redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1])
    end
    return redis.call('HGETALL', KEYS[2])";

/// A guest's cart becomes part of a user's.
const MERGE_CARTS: &str = "
    local guest = redis.call('HGETALL', KEYS[1])
    for i = 1, #guest, 2 do redis.call('HINCRBY', KEYS[2], guest[i], guest[i + 1]) end
    redis.call('DEL', KEYS[1])
    return {#guest / 2, redis.call('HVALS', KEYS[2])}";

/// An object under its tags, and what has all of some tags.
const TAG: &str = "
    for i = 2, #ARGV do redis.call('SADD', KEYS[1] .. ARGV[i], ARGV[1]) end
    local sets = {}
    for i = 2, #ARGV do sets[#sets + 1] = KEYS[1] .. ARGV[i] end
    local both = redis.call('SINTER', unpack(sets))
    table.sort(both)
    return both";

/// An event counts once, whoever repeats it, and leaves a trace in a stream.
const ONCE: &str = "
    if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then
        return {'seen', redis.call('HGET', KEYS[1], ARGV[1])}
    end
    local id = redis.call('XADD', KEYS[2], 'MAXLEN', 2, ARGV[2], 'event', ARGV[1])
    return {'new', id, redis.call('XLEN', KEYS[2])}";

/// How many came, day by day and together.
const VISITORS: &str = "
    redis.call('PFADD', KEYS[#KEYS], unpack(ARGV))
    local counts = {}
    for _, day in ipairs(KEYS) do counts[#counts + 1] = redis.call('PFCOUNT', day) end
    counts[#counts + 1] = redis.call('PFCOUNT', unpack(KEYS))
    return counts";

/// Who is near a place, nearest first.
const NEARBY: &str = "
    redis.call('GEOADD', KEYS[1], ARGV[1], ARGV[2], ARGV[3])
    return redis.call('GEOSEARCH', KEYS[1], 'FROMMEMBER', ARGV[3], 'BYRADIUS', ARGV[4], 'km', 'ASC')";

/// Numbers in a packed list under one field.
const PACKED: &str = "
    local list = redis.call('HGET', KEYS[1], ARGV[1])
    local numbers = list and cmsgpack.unpack(list) or {}
    numbers[#numbers + 1] = tonumber(ARGV[2])
    redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(numbers))
    local sum = 0
    for _, n in ipairs(numbers) do sum = sum + n end
    return {#numbers, sum, struct.unpack('>I4', struct.pack('>I4', sum))}";

#[test]
fn limiters_and_locks_reply_as_on_redis() {
    compare(&[
        (SLIDING_LOG, &["log"], &["1000", "500", "2"]),
        (SLIDING_LOG, &["log"], &["1100", "500", "2"]),
        (SLIDING_LOG, &["log"], &["1200", "500", "2"]),
        (SLIDING_LOG, &["log"], &["1550", "500", "2"]),
        (BUCKET_IN_HASH, &["bucket"], &["0.5", "3", "100", "2"]),
        (BUCKET_IN_HASH, &["bucket"], &["0.5", "3", "101", "2"]),
        (BUCKET_IN_HASH, &["bucket"], &["0.5", "3", "103", "2"]),
        (CELL_RATE, &["cell"], &["1000", "100", "2"]),
        (CELL_RATE, &["cell"], &["1000", "100", "2"]),
        (CELL_RATE, &["cell"], &["1000", "100", "2"]),
        (CELL_RATE, &["cell"], &["1100", "100", "2"]),
        (SEMAPHORE, &["sem"], &["a", "1000", "2", "100"]),
        (SEMAPHORE, &["sem"], &["b", "1010", "2", "100"]),
        (SEMAPHORE, &["sem"], &["c", "1020", "2", "100"]),
        (SEMAPHORE, &["sem"], &["a", "1030", "2", "100"]),
        (SEMAPHORE, &["sem"], &["c", "1111", "2", "100"]),
        (REENTRANT_LOCK, &["lock"], &["me", "5000"]),
        (REENTRANT_LOCK, &["lock"], &["me", "5000"]),
        (REENTRANT_LOCK, &["lock"], &["other", "5000"]),
        (REENTRANT_UNLOCK, &["lock"], &["other"]),
        (REENTRANT_UNLOCK, &["lock"], &["me"]),
        (REENTRANT_UNLOCK, &["lock"], &["me"]),
        (REENTRANT_LOCK, &["lock"], &["other", "5000"]),
        (READ_LOCK, &["rw"], &["a"]),
        (READ_LOCK, &["rw"], &["b"]),
        (WRITE_LOCK, &["rw"], &["c"]),
        (WRITE_LOCK, &["w"], &["c"]),
        (READ_LOCK, &["w"], &["a"]),
    ]);
}

#[test]
fn queues_reply_as_on_redis() {
    compare(&[
        (ENQUEUE_ONCE, &["q", "known"], &["a"]),
        (ENQUEUE_ONCE, &["q", "known"], &["b"]),
        (ENQUEUE_ONCE, &["q", "known"], &["a"]),
        (TAKE_JOB, &["q", "busy"], &["100"]),
        (TAKE_JOB, &["q", "busy"], &["200"]),
        (TAKE_JOB, &["q", "busy"], &["300"]),
        (FINISH_JOB, &["busy", "known"], &["b"]),
        (FINISH_JOB, &["busy", "known"], &["b"]),
        (REQUEUE_LATE, &["busy", "q"], &["150", "10"]),
        (REQUEUE_LATE, &["busy", "q"], &["150", "10"]),
        (ENQUEUE_ONCE, &["q", "known"], &["b"]),
        ("return redis.call('ZADD', KEYS[1], 1, 'x', 2, 'y', 3, 'z')", &["plan"], &[]),
        (PROMOTE_DUE, &["plan", "q"], &["5"]),
        (PROMOTE_DUE, &["plan", "q"], &["5"]),
        (PROMOTE_DUE, &["plan", "q"], &["5"]),
        ("return redis.call('LRANGE', KEYS[1], 0, -1)", &["q"], &[]),
        ("return redis.call('ZADD', KEYS[1], 1.5, 'x', -2, 'y')", &["urgent"], &[]),
        ("return redis.call('HSET', KEYS[1], unpack(ARGV))", &["data"], &["x", "1", "z", "2"]),
        (POP_URGENT, &["urgent", "data"], &[]),
        (POP_URGENT, &["urgent", "data"], &[]),
        (POP_URGENT, &["urgent", "data"], &[]),
        (ONCE, &["seen", "events"], &["e1", "1-1"]),
        (ONCE, &["seen", "events"], &["e1", "1-2"]),
        (ONCE, &["seen", "events"], &["e2", "1-3"]),
        (ONCE, &["seen", "events"], &["e3", "2-0"]),
        (ONCE, &["seen", "events"], &["e4", "1-9"]),
    ]);
}

#[test]
fn records_and_boards_reply_as_on_redis() {
    compare(&[
        (BOARD, &["board"], &["10", "a"]),
        (BOARD, &["board"], &["30", "b"]),
        (BOARD, &["board"], &["20.5", "c"]),
        (BOARD, &["board"], &["5", "b"]),
        (RECENT, &["recent"], &["x", "2"]),
        (RECENT, &["recent"], &["y", "2"]),
        (RECENT, &["recent"], &["x", "2"]),
        (RECENT, &["recent"], &["z", "2"]),
        (SAVE_SESSION, &["session"], &["0", "{\"user\":\"u1\",\"cart\":3}"]),
        (SAVE_SESSION, &["session"], &["0", "{\"user\":\"u2\"}"]),
        (SAVE_SESSION, &["session"], &["1", "{\"theme\":\"dark\"}"]),
        ("return redis.call('HSET', KEYS[1], 'a', 5, 'b', 1)", &["stock"], &[]),
        (RESERVE, &["stock", "held"], &["a", "2", "b", "1"]),
        (RESERVE, &["stock", "held"], &["a", "2", "b", "1"]),
        (RESERVE, &["stock", "held"], &["a", "3"]),
        (MERGE_CARTS, &["held", "cart"], &[]),
        (MERGE_CARTS, &["held", "cart"], &[]),
        (TAG, &["tag:"], &["o1", "red", "big"]),
        (TAG, &["tag:"], &["o2", "red"]),
        (TAG, &["tag:"], &["o3", "big", "red"]),
        (VISITORS, &["d1"], &["a", "b"]),
        (VISITORS, &["d1", "d2"], &["b", "c", "d"]),
        (NEARBY, &["geo"], &["13.361389", "38.115556", "Palermo", "200"]),
        (NEARBY, &["geo"], &["15.087269", "37.502669", "Catania", "200"]),
        (NEARBY, &["geo"], &["2.349014", "48.864716", "Paris", "200"]),
        (PACKED, &["packed"], &["f", "7"]),
        (PACKED, &["packed"], &["f", "300"]),
    ]);
}
