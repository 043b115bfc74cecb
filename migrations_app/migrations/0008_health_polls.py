
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('migrations_app', '0007_week_states'),
    ]

    operations = [
        migrations.AddField(
            model_name='healthsample',
            name='connect_ms',
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name='healthsample',
            name='first_byte_ms',
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name='healthstate',
            name='against',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='plan',
            name='monolith_health',
            field=models.JSONField(blank=True, default=dict, help_text='As Service.health.'),
        ),
        migrations.AddField(
            model_name='service',
            name='health',
            field=models.JSONField(blank=True, default=dict, help_text='How it is polled: planfile.schema.HealthPart.'),
        ),
        migrations.AlterField(
            model_name='healthsample',
            name='healthy',
            field=models.BooleanField(null=True),
        ),
        migrations.CreateModel(
            name='HealthChange',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('target', models.SlugField(max_length=80)),
                ('at', models.DateTimeField()),
                ('was', models.CharField(choices=[('healthy', 'Healthy'), ('unhealthy', 'Unhealthy'), ('unknown', 'Unknown')], max_length=10)),
                ('state', models.CharField(choices=[('healthy', 'Healthy'), ('unhealthy', 'Unhealthy'), ('unknown', 'Unknown')], max_length=10)),
                ('reason', models.CharField(blank=True, max_length=300)),
            ],
            options={
                'default_permissions': (),
                'indexes': [models.Index(fields=['target', '-at'], name='health_change_latest')],
                'constraints': [models.CheckConstraint(condition=models.Q(('state__in', ['healthy', 'unhealthy', 'unknown']), ('was__in', ['healthy', 'unhealthy', 'unknown'])), name='health_change_known')],
            },
        ),
    ]
