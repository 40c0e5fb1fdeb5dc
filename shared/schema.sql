-- The tables of candles and calendar, and the forecasts made from them, for Supabase or any PostgreSQL
-- from 15 on. Safe to run again.
--
-- Who may what: the role kronos_training reads them; kronos_writer reads, inserts and updates them, but
-- deletes nothing; kronos_forecaster reads them and alone reads, inserts and updates forecasts;
-- anon and authenticated see nothing; the owner and service_role (which bypasses row-level security) may do
-- anything. Over HTTP, hosted Supabase takes the project's own keys only: the exporter needs a secret key there
-- (a PostgREST of your own also takes a JWT whose role claim is kronos_training). For a direct connection, make
-- a login that only reads:
--     create role trainer login password '...' in role kronos_training;

do $$
begin
    if not exists (select from pg_roles where rolname = 'kronos_training') then
        create role kronos_training nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'kronos_writer') then
        create role kronos_writer nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'kronos_forecaster') then
        create role kronos_forecaster nologin;
    end if;
    grant kronos_training to kronos_forecaster;
    -- PostgREST logs in as authenticator and switches to the role that the JWT names.
    if exists (select from pg_roles where rolname = 'authenticator') then
        grant kronos_training, kronos_writer, kronos_forecaster to authenticator;
    end if;
end
$$;

create table if not exists public.symbols (
    symbol text primary key check (symbol <> ''),
    asset_class text not null check (asset_class in ('crypto', 'us_equity', 'index', 'fx')),
    tradable boolean not null
);

-- One bar per symbol and session. ts is the session date at 00:00 UTC; prices and amount are in quote currency.
-- The primary key is also the read index: the exporter pages through it. The second index serves --since.
create table if not exists public.ohlcv_1d (
    symbol text not null references public.symbols (symbol),
    ts timestamptz not null check (date_trunc('day', ts at time zone 'UTC') = ts at time zone 'UTC'),
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume double precision not null check (volume >= 0 and volume < 'Infinity'),
    amount double precision check (amount >= 0 and amount < 'Infinity'), -- null: volume x mean(OHLC)
    primary key (symbol, ts),
    -- In PostgreSQL NaN is greater than every number, so the last comparison also keeps NaN and Infinity out.
    check (0 < low and low <= least(open, close) and greatest(open, close) <= high and high < 'Infinity')
);
create index if not exists ohlcv_1d_ts_symbol on public.ohlcv_1d (ts, symbol);

-- Bars shorter than a day, of crypto only: one per symbol, length and opening time (UTC). An export of one length
-- pages through the primary key; daily bars stay in ohlcv_1d.
create table if not exists public.ohlcv (
    symbol text not null references public.symbols (symbol),
    "interval" text not null check ("interval" in ('4h', '1h')),
    ts timestamptz not null,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume double precision not null check (volume >= 0 and volume < 'Infinity'),
    amount double precision check (amount >= 0 and amount < 'Infinity'), -- null: volume x mean(OHLC)
    primary key ("interval", symbol, ts),
    check (extract(epoch from ts)::bigint % case "interval" when '4h' then 14400 else 3600 end = 0),
    check (ts = date_trunc('minute', ts)),
    check (0 < low and low <= least(open, close) and greatest(open, close) <= high and high < 'Infinity')
);
create index if not exists ohlcv_interval_ts_symbol on public.ohlcv ("interval", ts, symbol);

-- A revision or a postponement is a new row of the same event_id. first_seen_at null: the schedule was always
-- known and the actual became known at its release. There is at most one such row per event_id.
create table if not exists public.economic_calendar (
    event_id text not null check (event_id <> ''),
    event_type text not null,
    event_name text not null,
    currency text not null,
    impact text not null check (impact in ('high', 'medium', 'low')),
    release_at timestamptz not null,
    actual double precision check (actual > '-Infinity' and actual < 'Infinity'),
    forecast double precision check (forecast > '-Infinity' and forecast < 'Infinity'),
    previous double precision check (previous > '-Infinity' and previous < 'Infinity'),
    first_seen_at timestamptz,
    constraint economic_calendar_key unique nulls not distinct (event_id, first_seen_at)
);
-- Paging reads in this order, with the row that was always known first.
create index if not exists economic_calendar_pages
    on public.economic_calendar (event_id, first_seen_at nulls first);
create index if not exists economic_calendar_release on public.economic_calendar (release_at);
-- Of symbol events (earnings, dividends, splits): the symbol on whose bars they fall; null: everybody's.
alter table public.economic_calendar add column if not exists symbol text check (symbol <> '');

alter table public.symbols enable row level security;
alter table public.ohlcv_1d enable row level security;
alter table public.ohlcv enable row level security;
alter table public.economic_calendar enable row level security;

-- Supabase grants new tables to anon and authenticated by default: take that back, for these only.
do $$
declare
    stranger text;
begin
    foreach stranger in array array['anon', 'authenticated'] loop
        if exists (select from pg_roles where rolname = stranger) then
            execute format(
                'revoke all on public.symbols, public.ohlcv_1d, public.ohlcv, public.economic_calendar from %I',
                stranger
            );
        end if;
    end loop;
end
$$;
revoke all on public.symbols, public.ohlcv_1d, public.ohlcv, public.economic_calendar from public;

-- Whatever a run of an older version of this file granted goes first.
revoke all on public.symbols, public.ohlcv_1d, public.ohlcv, public.economic_calendar
    from kronos_training, kronos_writer;
grant usage on schema public to kronos_training, kronos_writer;
grant select on public.symbols, public.ohlcv_1d, public.ohlcv, public.economic_calendar to kronos_training;
grant select, insert, update on public.symbols, public.ohlcv_1d, public.ohlcv, public.economic_calendar
    to kronos_writer;

do $$
declare
    name text;
begin
    foreach name in array array['symbols', 'ohlcv_1d', 'ohlcv', 'economic_calendar'] loop
        execute format('drop policy if exists kronos_training_reads on public.%I', name);
        execute format(
            'create policy kronos_training_reads on public.%I for select to kronos_training using (true)', name
        );
        execute format('drop policy if exists kronos_writer_writes on public.%I', name);
        execute format(
            'create policy kronos_writer_writes on public.%I to kronos_writer using (true) with check (true)',
            name
        );
    end loop;
end
$$;

-- What forecast-all --to writes: one row per symbol, forecast bar, column and model, the latest forecast of each.
-- version null: the base alone. Prices are in quote currency; q05 .. q95 are quantiles over the sample paths.
create table if not exists public.forecasts (
    symbol text not null check (symbol <> ''),
    asset_class text not null check (asset_class in ('crypto', 'us_equity', 'index', 'fx')),
    last_bar date not null, -- session date of the last bar that was known
    last_close double precision not null,
    as_of timestamptz not null, -- nothing that became known later was used
    date date not null check (date > last_bar), -- session date of the forecast bar
    step integer not null check (step >= 1),
    target_name text not null check (target_name in ('open', 'high', 'low', 'close', 'volume')),
    mean double precision not null,
    q05 double precision not null,
    q10 double precision not null,
    q25 double precision not null,
    q50 double precision not null,
    q75 double precision not null,
    q90 double precision not null,
    q95 double precision not null,
    paths integer not null,
    seed bigint not null,
    missing_leaders text not null,
    version text,
    digest text,
    base_digest text not null,
    constraint forecasts_key unique nulls not distinct (symbol, last_bar, step, target_name, version)
);
create index if not exists forecasts_date on public.forecasts (date, symbol);

alter table public.forecasts enable row level security;
do $$
declare
    stranger text;
begin
    foreach stranger in array array['anon', 'authenticated', 'kronos_training', 'kronos_writer'] loop
        if exists (select from pg_roles where rolname = stranger) then
            execute format('revoke all on public.forecasts from %I', stranger);
        end if;
    end loop;
end
$$;
revoke all on public.forecasts from public, kronos_forecaster;
grant usage on schema public to kronos_forecaster;
grant select, insert, update on public.forecasts to kronos_forecaster;
drop policy if exists kronos_forecaster_writes on public.forecasts;
create policy kronos_forecaster_writes on public.forecasts to kronos_forecaster using (true) with check (true);
