-- Take a partition over from whoever owned it.
--
-- KEYS[1]: any key of the namespace, so that a cluster finds the slot.  ARGV[1]: prefix of all keys.  ARGV[2]: the partition.
-- An epoch is higher than those before it, and begins with the time: a store that was emptied and one of before that would count alike, so that an owner who met
-- the one after the other took it for its own.
-- Returns { the store's time in microseconds, the epoch, how many commits of owners the partition had }, the last two as text.
local prefix = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local before = tonumber(redis.call('HGET', prefix .. 'epoch', ARGV[2]) or '0')
local epoch = string.format('%.0f', math.max(before + 1, now))
redis.call('HSET', prefix .. 'epoch', ARGV[2], epoch)
return { now, epoch, redis.call('HGET', prefix .. 'revisions', ARGV[2]) or '0' }
