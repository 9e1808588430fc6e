-- Note what operators declared; limits may have changed, so every queue that one stopped is looked at again.
--
-- KEYS[1]: any key of the namespace.  ARGV[1]: prefix.
-- ARGV[2]: MessagePack of { fold, expect, guards = { { guard, value, grows, unless }, ... }, outbox }: guards are set in their order; a value is empty to
-- remove the guard; one that grows is a number, set where the guard is not further, and settles what it was said to become; one with `unless` stays if
-- it was last set beside this same text;
-- `fold` is false, or { { partition, position }, ... } where everything that was ever declared is given, up to these positions;
-- `expect` is { { partition, position before, position after }, ... } of what is read from the log:
-- whoever comes late with it finds the position further, and takes nothing back; `outbox` is false, or { instance, entry }.
-- ARGV[3]: the records of the outbox.  ARGV[4...]: pairs of a field and its bytes, empty to remove the field.
-- Returns "ok"; "lost" for single declarations in a store that knows of no fold (it was emptied: what is missing would never be missed), or that is not
-- where they begin; "known" for a fold where there is one. The version is a time, so that no other store, and no other past of this one, ever had the same.
local prefix, batch = ARGV[1], cmsgpack.unpack(ARGV[2])
local before = redis.call('HGET', prefix .. 'controls', 'version')
if not before and not batch.fold then
  return 'lost'
elseif before and batch.fold then
  return 'known'
end
for _, position in ipairs(batch.expect) do
  if redis.call('HGET', prefix .. 'positions', position[1]) ~= position[2] then
    return 'lost'
  end
end
for _, position in ipairs(batch.expect) do
  redis.call('HSET', prefix .. 'positions', position[1], position[3])
end
for _, place in ipairs(batch.fold or {}) do
  redis.call('HSET', prefix .. 'positions', place[1], place[2])
end
local guards = prefix .. 'guards'
for _, guard in ipairs(batch.guards) do
  local name, value, grows, unless = guard[1], guard[2], guard[3], guard[4]
  local now = redis.call('HGET', guards, name)
  if value == '' then
    redis.call('HDEL', guards, name, 'beside/' .. name)
  elseif grows then
    local known = string.gsub(now or '0', '%?', '')
    if tonumber(known) < tonumber(value) or now == value .. '?' then
      redis.call('HSET', guards, name, value)
    end
  elseif unless == '' then
    redis.call('HSET', guards, name, value)
  elseif not now or redis.call('HGET', guards, 'beside/' .. name) ~= unless then
    redis.call('HSET', guards, name, value, 'beside/' .. name, unless)
  end
end
for at = 4, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', prefix .. 'controls', ARGV[at])
  else
    redis.call('HSET', prefix .. 'controls', ARGV[at], ARGV[at + 1])
  end
end
local time = redis.call('TIME')
local version = math.max(tonumber(before or '0') + 1, time[1] * 1000000 + time[2])
redis.call('HSET', prefix .. 'controls', 'version', string.format('%.0f', version))
for _, subject in ipairs(redis.call('SMEMBERS', prefix .. 'parked')) do
  wake_parked(prefix, subject)
end
for _, queue in ipairs(redis.call('ZRANGE', prefix .. 'resting', 0, -1)) do
  redis.call('ZREM', prefix .. 'resting', queue)
  index(prefix, queue, true)
end
if batch.outbox then
  keep(prefix, batch.outbox[1], batch.outbox[2], ARGV[3])
end
return 'ok'
