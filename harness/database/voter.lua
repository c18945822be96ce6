-- One voter's rules, run inside Redis. The twin is acceptor.py; one contract test holds both to the same answers.
--
-- ARGV: operation, rig, voter, incarnation, set version, then what the operation needs.
-- Answers begin with a word, followed by rig, voter, incarnation and set version as this voter has them.
-- Ballots travel as two arguments, number and proposer. Every value is a string: Redis cuts floating-point answers.

local SELF = 'voter'
local LEASES = 'leases'
local REVISIONS = 'revisions'
local LEASE_MEMORY_US = 3600 * 1000000

local operation, rig, voter, incarnation, set_version = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local self = redis.call('HMGET', SELF, 'rig', 'voter', 'incarnation', 'set_version', 'members', 'revision')
local own_incarnation = self[3] or ''
local own_version = self[4] or '0'

local function answer(word, ...)
  return {word, self[1] or rig, self[2] or voter, own_incarnation, own_version, ...}
end

local function less(number_a, proposer_a, number_b, proposer_b)
  if number_a ~= number_b then return number_a < number_b end
  return proposer_a < proposer_b
end

local function register(key)
  local fields = redis.call('HMGET', 'register:' .. key,
    'promised_number', 'promised_proposer', 'accepted_number', 'accepted_proposer', 'value')
  return {
    promised_number = tonumber(fields[1] or '0'), promised_proposer = fields[2] or '',
    accepted_number = fields[3] or '0', accepted_proposer = fields[4] or '', value = fields[5],
  }
end

if self[1] and self[1] ~= rig then return answer('refused', 'rig') end
if self[2] and self[2] ~= voter then return answer('refused', 'voter') end

if operation == 'hello' then
  return answer('hello', self[5] or '')
end

if operation == 'form' then
  if own_incarnation == '' then
    redis.call('HSET', SELF, 'rig', rig, 'voter', voter, 'incarnation', incarnation,
      'set_version', set_version, 'members', ARGV[6], 'revision', '0')
    own_incarnation, own_version = incarnation, set_version
  end
  if own_incarnation ~= incarnation then return answer('refused', 'incarnation') end
  if own_version ~= set_version then return answer('refused', 'set-version') end
  return answer('formed')
end

if own_incarnation == '' then return answer('refused', 'empty') end
if own_incarnation ~= incarnation then return answer('refused', 'incarnation') end
if own_version ~= set_version then return answer('refused', 'set-version') end

if operation == 'prepare' then
  local key, number, proposer = ARGV[6], ARGV[7], ARGV[8]
  local r = register(key)
  if not less(r.promised_number, r.promised_proposer, tonumber(number), proposer) then
    return answer('conflict', key, number, proposer, string.format('%d', r.promised_number), r.promised_proposer)
  end
  redis.call('HSET', 'register:' .. key, 'promised_number', number, 'promised_proposer', proposer)
  return answer('promise', key, number, proposer, r.accepted_number, r.accepted_proposer, r.value)
end

if operation == 'accept' then
  local key, number, proposer, value, next_number, next_proposer =
    ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
  local r = register(key)
  if less(tonumber(number), proposer, r.promised_number, r.promised_proposer) then
    return answer('conflict', key, number, proposer, string.format('%d', r.promised_number), r.promised_proposer)
  end
  local promised_number, promised_proposer = number, proposer
  if less(tonumber(number), proposer, tonumber(next_number), next_proposer) then
    promised_number, promised_proposer = next_number, next_proposer
  end
  local revision = redis.call('HINCRBY', SELF, 'revision', 1)
  redis.call('HSET', 'register:' .. key, 'accepted_number', number, 'accepted_proposer', proposer,
    'value', value, 'promised_number', promised_number, 'promised_proposer', promised_proposer)
  redis.call('ZADD', REVISIONS, revision, key)
  return answer('accepted', key, number, proposer)
end

if operation == 'read' then
  local key = ARGV[6]
  local r = register(key)
  return answer('value', key, r.accepted_number, r.accepted_proposer, r.value)
end

if operation == 'beat' then
  local session, since = ARGV[6], ARGV[7]
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local old = redis.call('HGET', LEASES, session)
  local renewals = old and tonumber(string.match(old, '^(%d+)')) or 0
  redis.call('HSET', LEASES, session, string.format('%d %d', renewals + 1, now))
  local leases, flat = redis.call('HGETALL', LEASES), {}
  for i = 1, #leases, 2 do
    local count, at = string.match(leases[i + 1], '^(%d+) (%d+)$')
    local age = now - tonumber(at)
    if age > LEASE_MEMORY_US then
      redis.call('HDEL', LEASES, leases[i])
    else
      flat[#flat + 1] = leases[i]
      flat[#flat + 1] = count
      flat[#flat + 1] = string.format('%d', age)
    end
  end
  local changed = {}
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', REVISIONS, '(' .. since, '+inf')) do
    local ballot = redis.call('HMGET', 'register:' .. key, 'accepted_number', 'accepted_proposer')
    changed[#changed + 1] = key
    changed[#changed + 1] = ballot[1]
    changed[#changed + 1] = ballot[2]
  end
  local cluster = register('cluster')
  return answer('beat', session, self[6] or '0', cluster.accepted_number, cluster.accepted_proposer, flat, changed)
end

return redis.error_reply('unknown operation ' .. operation)
