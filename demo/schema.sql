-- An order system as they were built around 1990, moved to PostgreSQL without a second thought.
create table custmst (                       -- customers
    cusno   char(8)       primary key,       -- padded: '10042   '
    cusnam  char(30)      not null,
    custyp  char(1)       not null,          -- W wholesale, R retail, X internal
    cussts  char(1)       not null,          -- blank active, S suspended
    crdlim  numeric(11,2) not null,
    crtdt   numeric(8)    not null           -- a date: 19980315
);
create table ordhdr (                        -- orders
    ordno   numeric(9)    primary key,
    cusno   char(8)       not null references custmst on update cascade,
    orddt   numeric(8)    not null,
    ordsts  char(2)       not null,          -- 10 entered, 20 released, 30 shipped, 99 cancelled
    ordamt  numeric(13,2) not null,
    memo    text
);
create table orddtl (                        -- order lines
    ordno   numeric(9)    not null,
    linno   smallint      not null,
    itmno   char(12)      not null,
    qty     numeric(9,3)  not null,
    price   numeric(11,4) not null,
    primary key (ordno, linno)
);

insert into custmst
select (10000 + n)::text, upper('customer ' || n), substr('WRRX', 1 + n % 4, 1), case when n % 17 = 0 then 'S' else '' end,
       1000 * (n % 50), 19900101 + n % 28
from generate_series(1, 500) n;

insert into ordhdr
select 400000 + n, (10001 + n % 500)::text, 19970101 + n % 28, substr('1020303099', 1 + 2 * (n % 5), 2), 12.5 * (n % 90),
       case when n % 10 = 0 then 'CALL BEFORE DELIVERY' end
from generate_series(1, 1000) n;

insert into orddtl
select 400000 + 1 + n / 3, 1 + n % 3, 'A-' || lpad((n % 700)::text, 6, '0'), 1 + n % 12, 0.25 * (n % 200)
from generate_series(0, 2999) n;
