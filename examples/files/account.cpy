      * One account, 30 bytes (RECLN 30).
       01  ACCOUNT-RECORD.
           05  ACCT-ID              PIC 9(8).
           05  ACCT-OWNER           PIC X(12).
           05  ACCT-BALANCE         PIC S9(7)V99 COMP-3.
           05  ACCT-OPENED          PIC 9(8) COMP.
           05  FILLER               PIC X.
