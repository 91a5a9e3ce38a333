import com.rabbitmq.client.*;
import io.debezium.engine.*;
import io.debezium.engine.format.*;
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.util.*;

/**
 * Debezium's engine, publishing as Debezium Server's RabbitMQ sink does: one basicPublish a record, one wait for confirms a batch,
 * then every record marked and the batch committed. Runs until it is killed.
 *
 *   DebeziumToRabbit FILE.properties AMQP-PORT QUEUE [key=value ...]
 */
public class DebeziumToRabbit {
    private static final long CONFIRMS_WITHIN_MS = 30000;

    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        try (Reader file = new FileReader(args[0])) { settings.load(file); }
        for (String setting : List.of(args).subList(3, args.length)) {
            int equals = setting.indexOf('=');
            settings.setProperty(setting.substring(0, equals), setting.substring(equals + 1));
        }
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost("127.0.0.1");
        factory.setPort(Integer.parseInt(args[1]));
        Channel channel = factory.newConnection().createChannel();
        channel.confirmSelect();

        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine
            .create(KeyValueHeaderChangeEventFormat.of(Json.class, Json.class, Json.class),
                "io.debezium.embedded.async.ConvertingAsyncEngineBuilderFactory")
            .using(settings)
            .notifying(new Sink(channel, args[2]))
            .using((ok, message, error) -> {
                System.err.println("the engine ended, ok=" + ok + ": " + message);
                if (error != null) error.printStackTrace();
                // An initial snapshot ends the engine; what it cost can still be read then.
                if (!ok) Runtime.getRuntime().halt(4);
            })
            .build();
        engine.run();
        Thread.sleep(Long.MAX_VALUE);
    }

    private record Sink(Channel channel, String queue) implements DebeziumEngine.ChangeConsumer<ChangeEvent<String, String>> {
        @Override
        public void handleBatch(List<ChangeEvent<String, String>> records,
                DebeziumEngine.RecordCommitter<ChangeEvent<String, String>> committer) throws InterruptedException {
            try {
                for (ChangeEvent<String, String> record : records) {
                    String value = record.value() != null ? record.value() : "default";
                    Map<String, Object> headers = new HashMap<>();
                    for (Header<?> header : record.headers()) headers.put(header.getKey(), header.getValue());
                    AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().deliveryMode(2).headers(headers).build();
                    channel.basicPublish("", queue, properties, value.getBytes(StandardCharsets.UTF_8));
                }
                channel.waitForConfirmsOrDie(CONFIRMS_WITHIN_MS);
            } catch (Exception error) {
                error.printStackTrace();
                Runtime.getRuntime().halt(3);
            }
            for (ChangeEvent<String, String> record : records) committer.markProcessed(record);
            committer.markBatchFinished();
        }
    }
}
