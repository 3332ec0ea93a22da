-- What is under way on a budget, in all gateways: texts such as `29030415:2`, so many attempts that are forgotten at this
-- second. Whatever does not look so, and is not of the next seconds, is nobody's.
local kept = 10
local function read_under_way(key, second)
    local found = redis.pcall('GET', key)
    local ends, count = {}, 0
    -- one for each second that is kept takes no more
    if type(found) == 'string' and #found <= 500 then
        for at, number in string.gmatch(found, '(%d+):(%d+)') do
            at, number = tonumber(at), tonumber(number)
            if at > second and at <= second + kept and number >= 1 and number <= 1000000000 then
                ends[at] = number
                count = count + number
            end
        end
    end
    return ends, count
end
local function write_under_way(key, ends)
    local texts = {}
    for at, number in pairs(ends) do
        texts[#texts + 1] = string.format('%d:%d', at, number)
    end
    if #texts == 0 then
        redis.call('DEL', key)
    else
        redis.call('SET', key, table.concat(texts, ' '), 'PX', kept * 1000)
    end
end
