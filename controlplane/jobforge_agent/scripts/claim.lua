-- Lease jobs to runners, each if it still waits and the runner still has the slots.
--
-- KEYS[1]: any key of the namespace.  ARGV[1]: prefix.
-- ARGV[2]: MessagePack of { outbox, claims = { { job id, queue, runner, capacity, slots, attempt, job, due, partition, record }, ... } }; job
-- and record are numbers of further arguments.
-- Returns 1 or 0 per claim. An accepted one is in the outbox until its record is acknowledged.
local prefix, batch = ARGV[1], cmsgpack.unpack(ARGV[2])
local answers = {}
for index, claim in ipairs(batch.claims) do
  local id, queue, runner, capacity, slots, attempt = claim[1], claim[2], claim[3], claim[4], claim[5], claim[6]
  local busy = tonumber(redis.call('HGET', prefix .. 'busy', runner) or '0')
  answers[index] = 0
  if busy + slots <= capacity and redis.call('ZREM', prefix .. 'ready:' .. queue, id) == 1 then
    redis.call('HINCRBY', prefix .. 'busy', runner, slots)
    redis.call('HSET', prefix .. 'held:' .. runner, attempt, id)
    redis.call('SET', prefix .. 'job:' .. id, ARGV[claim[7]])
    if claim[8] > 0 then
      redis.call('ZADD', prefix .. 'due:' .. claim[9], claim[8], id)
    else
      redis.call('ZREM', prefix .. 'due:' .. claim[9], id)
    end
    redis.call('HSET', prefix .. 'outbox:' .. batch.outbox, attempt, ARGV[claim[10]])
    answers[index] = 1
  end
end
return answers
