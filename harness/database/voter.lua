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
local self = redis.call('HMGET', SELF, 'rig', 'voter', 'incarnation', 'set_version', 'members', 'revision', 'birth',
  'behind')
local own_incarnation = self[3] or ''
local own_version = self[4] or '0'

local function answer(word, ...)
  return {word, self[1] or rig, self[2] or voter, own_incarnation, own_version, ...}
end

-- A refusal tells the set that this voter has, so that who comes with an older one can adopt it.
local function refuse(why)
  return answer('refused', why, self[5] or '')
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

-- What the register has promised: all that an accept looks at, without its value.
local function promise_of(key)
  local fields = redis.call('HMGET', 'register:' .. key, 'promised_number', 'promised_proposer')
  return tonumber(fields[1] or '0'), fields[2] or ''
end

local function register_names()
  local names, cursor = {}, '0'
  repeat
    local page = redis.call('SCAN', cursor, 'MATCH', 'register:*', 'COUNT', 1000)
    cursor = page[1]
    for _, name in ipairs(page[2]) do names[#names + 1] = name end
  until cursor == '0'
  return names
end

if self[1] and self[1] ~= rig then return refuse('rig') end
if self[2] and self[2] ~= voter then return refuse('voter') end

if operation == 'hello' then
  local birth = self[7] or ''
  if own_incarnation == '' and birth == '' and ARGV[6] ~= '' then
    birth = ARGV[6]
    redis.call('HSET', SELF, 'birth', birth)
  end
  return answer('hello', self[5] or '', birth, self[8] or '')
end

if operation == 'form' then
  if own_incarnation == '' then
    redis.call('HSET', SELF, 'rig', rig, 'voter', voter, 'incarnation', incarnation,
      'set_version', set_version, 'members', ARGV[6], 'revision', '0', 'birth', incarnation)
    own_incarnation, own_version, self[5] = incarnation, set_version, ARGV[6]
  end
  if own_incarnation ~= incarnation then return refuse('incarnation') end
  if own_version ~= set_version then return refuse('set-version') end
  return answer('formed')
end

-- An empty voter is admitted under the name that this very emptiness was given: a call that comes late, to a voter that
-- has lost its disk once more, names another.
if operation == 'admit' then
  if own_incarnation == '' and self[7] and self[7] == incarnation then
    redis.call('HSET', SELF, 'rig', rig, 'voter', voter, 'incarnation', incarnation,
      'set_version', set_version, 'members', ARGV[6], 'revision', '0')
    own_incarnation, own_version, self[5] = incarnation, set_version, ARGV[6]
  end
  if own_incarnation ~= incarnation then return refuse('incarnation') end
  return answer('admitted')
end

if own_incarnation == '' then return refuse('empty') end
if own_incarnation ~= incarnation then return refuse('incarnation') end

if operation == 'raise' then
  if tonumber(own_version) > tonumber(set_version) then return refuse('set-version') end
  if own_version ~= set_version then
    redis.call('HSET', SELF, 'set_version', set_version, 'members', ARGV[6])
    redis.call('HINCRBY', SELF, 'revision', 1)
    own_version, self[5] = set_version, ARGV[6]
  end
  return answer('raised')
end

if operation == 'retire' then
  if tonumber(own_version) > tonumber(set_version) then return refuse('set-version') end
  if cjson.decode(ARGV[6])[voter] == incarnation then return refuse('member') end
  for _, name in ipairs(register_names()) do redis.call('DEL', name) end
  redis.call('DEL', LEASES, REVISIONS, SELF)
  redis.call('HSET', SELF, 'birth', ARGV[7])
  own_incarnation, own_version = '', '0'
  return answer('retired', ARGV[7])
end

if self[8] then return refuse('behind') end
if own_version ~= set_version then return refuse('set-version') end

local own_writes = tonumber(self[6] or '0')
local function lost_writes(seen)
  if own_writes >= tonumber(seen) then return false end
  redis.call('HSET', SELF, 'behind', '1')
  return true
end

if operation == 'prepare' then
  local key, number, proposer, seen = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
  if lost_writes(seen) then return refuse('behind') end
  local r = register(key)
  if not less(r.promised_number, r.promised_proposer, tonumber(number), proposer) then
    return answer('conflict', key, number, proposer, string.format('%d', r.promised_number), r.promised_proposer)
  end
  local writes = redis.call('HINCRBY', SELF, 'revision', 1)
  redis.call('HSET', 'register:' .. key, 'promised_number', number, 'promised_proposer', proposer)
  return answer('promise', key, number, proposer, r.accepted_number, r.accepted_proposer, r.value,
    string.format('%d', writes))
end

if operation == 'accept' then
  local key, number, proposer, value, next_number, next_proposer, owner, circle, seen =
    ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13], ARGV[14]
  if lost_writes(seen) then return refuse('behind') end
  local before_number, before_proposer = promise_of(key)
  if less(tonumber(number), proposer, before_number, before_proposer) then
    return answer('conflict', key, number, proposer, string.format('%d', before_number), before_proposer)
  end
  local promised_number, promised_proposer = number, proposer
  if less(tonumber(number), proposer, tonumber(next_number), next_proposer) then
    promised_number, promised_proposer = next_number, next_proposer
  end
  local revision = redis.call('HINCRBY', SELF, 'revision', 1)
  redis.call('HSET', 'register:' .. key, 'accepted_number', number, 'accepted_proposer', proposer,
    'value', value, 'owner', owner, 'circle', circle, 'promised_number', promised_number, 'promised_proposer', promised_proposer)
  redis.call('ZADD', REVISIONS, revision, key)
  return answer('accepted', key, number, proposer, string.format('%d', revision))
end

if operation == 'read' then
  local key, seen = ARGV[6], ARGV[7]
  if lost_writes(seen) then return refuse('behind') end
  local r = register(key)
  return answer('value', key, r.accepted_number, r.accepted_proposer, r.value)
end

if operation == 'read-many' then
  if lost_writes(ARGV[6]) then return refuse('behind') end
  local contents = {}
  for i = 7, #ARGV do
    local fields = redis.call('HMGET', 'register:' .. ARGV[i], 'accepted_number', 'accepted_proposer', 'value')
    contents[#contents + 1] = ARGV[i]
    contents[#contents + 1] = fields[1] or '0'
    contents[#contents + 1] = fields[2] or ''
    contents[#contents + 1] = fields[3]
  end
  return answer('values', contents)
end

if operation == 'keys' then
  local keys = {}
  for _, name in ipairs(register_names()) do keys[#keys + 1] = string.sub(name, #'register:' + 1) end
  return answer('keys', keys)
end

if operation == 'beat' then
  local session, since, seen, interest = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
  if lost_writes(seen) then return refuse('behind') end
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local old = redis.call('HGET', LEASES, session)
  local renewals = old and tonumber(string.match(old, '^(%d+)')) or 0
  redis.call('HSET', LEASES, session, string.format('%d %d', renewals + 1, now))
  local leases, flat = redis.call('HGETALL', LEASES), {}
  for i = 1, #leases, 2 do
    local count, at = string.match(leases[i + 1], '^(%d+) (%d+)$')
    if now - tonumber(at) > LEASE_MEMORY_US then
      redis.call('HDEL', LEASES, leases[i])
    else
      flat[#flat + 1] = leases[i]
      flat[#flat + 1] = count
      flat[#flat + 1] = at
    end
  end
  -- Of interest is everything, or NODE|CIRCLE,CIRCLE...: what that node owns, and what is of these circles, or
  -- nothing, which is a dash.
  local node, listed = string.match(interest, '^([^|]*)|(.*)$')
  local circles = {}
  for circle in string.gmatch(listed or '', '[^,]+') do circles[circle] = true end
  local changed = {}
  for _, key in ipairs(interest == '-' and {} or redis.call('ZRANGEBYSCORE', REVISIONS, '(' .. since, '+inf')) do
    local fields = redis.call('HMGET', 'register:' .. key, 'accepted_number', 'accepted_proposer', 'owner',
      'circle')
    if not node or fields[3] == node or circles[fields[4] or ''] then
      changed[#changed + 1] = key
      changed[#changed + 1] = fields[1]
      changed[#changed + 1] = fields[2]
      changed[#changed + 1] = fields[3] or ''
    end
  end
  local cluster = register('cluster')
  return answer('beat', session, self[6] or '0', cluster.accepted_number, cluster.accepted_proposer,
    string.format('%d', now), flat, changed)
end

return redis.error_reply('unknown operation ' .. operation)
